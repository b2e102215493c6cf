"""The real three services, started once per bundle and shared by the tests.

A pytest plugin: tests/conftest.py names it, tests take the `stacks` fixture.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from deploy.client import ChatClient
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, gateway_pb2
from protos.wire import channels, tensors
from tests.support.talks import Talk
from tests.support.waiting import wait_until

# A stack costs about a gigabyte and 10 to 20 s; two let neighbouring tests share without
# filling the memory of a small machine.
MOST_STACKS = 2

FLAGS = {
    "decoder": ("--allow-logits=true", "--max-sequences=8", "--max-context=4096", "--threads=1"),
    "vision": ("--threads=1", "--tower=exact"),
}

# The vision tier in one process; for `StackSettings.programs`.
WITHOUT_RAY = {"vision": (sys.executable, str(Path(__file__).with_name("vision_without_ray.py")))}


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyAnswer:
    """What came out of the services: T tokens, logits float32 [T, vocab], and the last chunk."""

    text: str
    token_ids: tuple[int, ...]
    logits: npt.NDArray[np.float32]
    completion: gateway_pb2.ChatCompletion


class ServedStack:
    """A running stack with clients of its gateway and its decoder."""

    def __init__(self, bundle: Path, log_dir: Path, *, ray: bool) -> None:
        self.stack = LocalStack(
            StackSettings(
                bundle=bundle,
                ports=ANY_FREE,
                flags=FLAGS,
                log_dir=log_dir,
                programs={} if ray else WITHOUT_RAY,
            )
        )
        self.stack.start()
        self.chat = ChatClient(self.stack.addresses["gateway"])
        self._decoder = grpc.insecure_channel(
            self.stack.addresses["decoder"], options=list(channels.channel_options())
        )

    def close(self) -> None:
        """Stops everything.

        Raises:
            AssertionError: a process of the stack outlived it.
        """
        processes = family_of(self.stack)
        self.chat.__exit__(None, None, None)
        self._decoder.close()
        self.stack.stop()
        # Killed processes take a moment to die.
        wait_until(
            lambda: not any(is_alive(process) for process in processes),
            what="every process of the stack to end",
            timeout_s=30.0,
        )

    def load(self) -> decoder_pb2.DecoderLoad:
        """How busy the decoder is."""
        stub = decoder_pb2_grpc.DecoderServiceStub(self._decoder)
        load: decoder_pb2.DecoderLoad = stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=30.0)
        return load

    def wait_until_idle(self, *, timeout_s: float = 30.0) -> None:
        """Waits until no sequence runs or waits in the decoder."""

        def idle() -> bool:
            load = self.load()
            return load.running_count == 0 and load.waiting_count == 0

        wait_until(idle, what="the decoder to be idle", timeout_s=timeout_s)

    def prepare(self, talk: Talk) -> gateway_pb2.PreparedPrompt:
        """The spliced prompt of a conversation."""
        request = gateway_pb2.PrepareRequest(messages=talk.to_proto(), tools_json=talk.tools_json())
        return self.chat.prepare(request)

    def greedy(self, talk: Talk, tokens: int) -> GreedyAnswer:
        """Exactly `tokens` greedy tokens of an answer, with their logits."""
        chunks = list(self.chat.complete(greedy_request(talk, tokens)))
        logits = [
            tensors.float32_from_proto(chunk.logits, field="logits", shape=(None, None))
            for chunk in chunks
            if chunk.token_ids
        ]
        return GreedyAnswer(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
            logits=np.concatenate(logits),
            completion=chunks[-1].completion,
        )


def greedy_request(talk: Talk, tokens: int) -> gateway_pb2.ChatRequest:
    """A request for greedy tokens past every end-of-sequence token, with logits."""
    return gateway_pb2.ChatRequest(
        messages=talk.to_proto(),
        tools_json=talk.tools_json(),
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0, repetition_penalty=1.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=tokens, ignore_eos=True),
        report_options=decoder_pb2.ReportOptions(logits=True),
    )


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that only waits to be reaped, by init say, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def family_of(stack: LocalStack) -> Sequence[psutil.Process]:
    """Every process of a running stack, Ray's included."""
    found = []
    for tier in stack.ready:
        service = psutil.Process(stack.pid(tier))
        found += [service, *service.children(recursive=True), *service.parents()[:1]]
    return found


class Stacks:
    """Running stacks by bundle; the one used longest ago makes room for a new one."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._running: OrderedDict[Path, ServedStack] = OrderedDict()

    def get(self, bundle: Path, *, ray: bool = True) -> ServedStack:
        """The stack that serves `bundle`, started if need be.

        Args:
            bundle: What is served.
            ray: Whether the replicas run on Ray, as users' do; one that runs is taken as it is.
        """
        if bundle not in self._running:
            while len(self._running) >= MOST_STACKS:
                self._running.popitem(last=False)[1].close()
            self._running[bundle] = ServedStack(bundle, self._log_dir / bundle.name, ray=ray)
        self._running.move_to_end(bundle)
        return self._running[bundle]

    def close(self) -> None:
        """Stops all."""
        while self._running:
            self._running.popitem()[1].close()


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    """Real stacks for as long as the session lasts."""
    running = Stacks(tmp_path_factory.mktemp("logs"))
    try:
        yield running
    finally:
        running.close()
