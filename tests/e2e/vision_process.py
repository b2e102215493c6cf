"""`python -m vision_service` as a process of its own, and a client for it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from protos.machine import processes
from protos.tandem.v1 import vision_pb2, vision_pb2_grpc
from protos.wire import tensors
from protos.wire.channels import LARGE_MESSAGE_BYTES, channel_options
from protos.wire.errors import ServiceError, from_rpc_error
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 100
STOP_TIMEOUT_S = 40
CALL_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One Encode stream, put together; `features` is float32 [levels, N, H]."""

    grid: tuple[int, int, int]
    features: npt.NDArray[np.float32]
    summary: vision_pb2.EncodeSummary


class VisionProcess:
    """A running service; as a context manager it is ended, with all that is below it."""

    def __init__(self, bundle: Path, log: Path, *flags: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "vision_service", "--bundle", str(bundle), "--port=0"]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *flags], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT
            )
        self.tree: dict[int, int] = {}
        self.channel: Any = None

    def __enter__(self) -> Self:
        port = self._read_port()
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=channel_options(LARGE_MESSAGE_BYTES)
        )
        self.stub = vision_pb2_grpc.VisionServiceStub(self.channel)
        self.remember_tree()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.process.poll() is None:
            self.remember_tree()
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        processes.end(self.tree, grace_s=0.0)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read_port(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service ended:\n{self.log.read_text()}")
        event = json.loads(line)
        assert (event["event"], event["tier"]) == ("serving", "vision")
        return int(event["ports"]["grpc"])

    def remember_tree(self) -> None:
        """Notes every process below the service, so that what stays can be found later."""
        for pid in processes.descendants(self.process.pid):
            since = processes.start_time(pid)
            if since is not None:
                self.tree[pid] = since

    def left_over(self) -> list[int]:
        """Remembered processes that still run."""
        return [pid for pid, since in self.tree.items() if processes.start_time(pid) == since]

    def replicas(self) -> list[int]:
        """The encoder replicas' processes."""
        below = processes.descendants(self.process.pid)
        return [pid for pid in below if _title(pid).startswith("ray::ServeReplica")]

    def computed_s(self) -> float:
        """What the replicas have computed so far, seconds of processor time together."""
        return sum(map(_cpu_ticks, self.replicas())) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the service itself."""
        self.remember_tree()
        os.kill(self.process.pid, number)

    def encode(self, request: vision_pb2.EncodeRequest) -> Answer:
        """Encodes and puts the stream together.

        Raises:
            ServiceError: what the service reported.
        """
        try:
            chunks = list(self.stub.Encode(request, timeout=CALL_TIMEOUT_S))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        header, summary = chunks[0].header, chunks[-1].summary
        parts: list[list[Any]] = [[] for _ in range(header.level_count)]
        for chunk in chunks[1:-1]:
            values = chunk.features.values
            parts[chunk.features.level].append(
                tensors.float32_from_proto(values, field="values", shape=(None, None))
            )
        features = np.stack([np.concatenate(level) for level in parts])
        assert features.shape[1] == header.token_count
        grid = header.grid_thw
        return Answer(grid=(grid.t, grid.h, grid.w), features=features, summary=summary)

    def image(self, data: bytes) -> Answer:
        """Encodes an image."""
        return self.encode(vision_pb2.EncodeRequest(image=data))

    def refusal(self, request: vision_pb2.EncodeRequest) -> ServiceError:
        """The error a request is refused with."""
        try:
            self.encode(request)
        except ServiceError as error:
            return error
        raise AssertionError("the request was not refused")


def wait_until_busy(pids: list[int], *, what: str) -> int:
    """Waits until one of the processes has computed for a tenth of a second; returns it."""
    before = {pid: _cpu_ticks(pid) for pid in pids}
    busy: list[int] = []

    def one_is_busy() -> bool:
        busy.extend(pid for pid in pids if _cpu_ticks(pid) - before[pid] >= 10)
        return bool(busy)

    wait_until(one_is_busy, what=what, timeout_s=60)
    return busy[0]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _cpu_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def wait_for_end(service: VisionProcess, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
    """The service's exit code, once it has ended by itself."""
    started_s = time.monotonic()
    code = service.process.wait(timeout_s)
    wait_until(
        lambda: not service.left_over(),
        what="the processes below the service to end",
        timeout_s=max(1.0, timeout_s - (time.monotonic() - started_s)),
    )
    return code
