"""What the gateway itself costs, between a client and tiers that cost nothing.

    python -m tests.bench.gateway_load.run BUNDLE [--part NAME ...]

The gateway runs on one core; the client and the stub tiers (stub_tiers.py) on the others. Parts:

    overhead  100 short chats a second for 10 s: milliseconds from the moment a request is due to
              its whole answer of one token, the stubs' own time included, and of the gateway's
              processor time
    stream    64 streams of 512 tokens, one in each message of the decoder: tokens for each second
              of the gateway's processor time
    prepare   gRPC Prepare of chats of about 500 tokens, and of one image and a question: requests
              for each second of its processor time
    overload  a decoder of 4 slots and 100 ms: answers a second with 8 clients, then with requests
              coming ten times as fast; what is refused must be so within 100 ms, and every request
              must have its answer

Goals are printed beside the figures. Processor time is the process's own, all threads, so a busy
machine falsifies `overhead` and `overload` alone. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from protos.tandem.v1 import gateway_pb2, gateway_pb2_grpc
from protos.wire.channels import channel_options
from tests.bench.figures import percentile
from tests.bench.gateway_load.client import Answer, Connection, request_bytes
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.support.prompts import png

RATE, SECONDS = 100, 10
STREAMS, STREAM_TOKENS, STREAM_ROUNDS = 64, 512, 4
PREPARED, CALLERS = 600, 4
SLOTS, SERVICE_MS, OVERLOAD_S = 4, 100, 8
KEPT_S = 3.0  # the server closes connections that were idle for 5
WORDS = "Look at the image and say what is to the left of the red square. "
GOALS = {
    "overhead_refused": 0,
    "overhead_p50_ms": 3.0,
    "overhead_p99_ms": 10.0,
    "overhead_cpu_ms": 3.0,
    "stream_tokens_per_core_s": 15_000,
    "prepare_text_per_core_s": 300,
    "prepare_image_per_core_s": 100,
    "overload_goodput_share": 0.8,
    "overload_refusal_p99_ms": 100,
    "overload_lost": 0,
}

ROW = (
    "overhead_p50_ms",
    "overhead_p99_ms",
    "overhead_cpu_ms",
    "stream_tokens_per_core_s",
    "prepare_text_per_core_s",
    "prepare_image_per_core_s",
    "overload_goodput_share",
    "overload_refusal_p99_ms",
    "overload_lost",
)

Figures = dict[str, float]


class Gateway:
    """A gateway process before stub tiers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())["ports"]
        self.http: int = ports["http"]
        self.grpc: int = ports["grpc"]
        self._process = psutil.Process(process.pid)

    def cpu_s(self) -> float:
        """Processor time it has used, all threads."""
        times = self._process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def gateway(bundle: Path, *stub_flags: str, flags: Sequence[str] = ()) -> Iterator[Gateway]:
    """A gateway on the first core, its stub tiers on the others."""
    cores = sorted(os.sched_getaffinity(0))
    stubs = [sys.executable, "-m", "tests.bench.gateway_load.stub_tiers", str(bundle), *stub_flags]
    with subprocess.Popen(stubs, stdout=subprocess.PIPE, text=True) as tiers:
        assert tiers.stdout is not None
        address = f"127.0.0.1:{int(tiers.stdout.readline())}"
        command = [sys.executable, "-m", "gateway", f"--bundle={bundle}", "--http-port=0"]
        command += [f"--vision={address}", f"--decoder={address}", "--grpc-port=0", *flags]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                served = Gateway(process)
                _pin(process.pid, cores[:1])
                _pin(tiers.pid, cores[1:] or cores)
                yield served
            finally:
                process.terminate()
                process.wait()
                tiers.kill()


def _pin(pid: int, cores: Sequence[int]) -> None:
    """All threads that there are, and those that they will start."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def chat(text: str, *, stream: bool, max_tokens: int) -> bytes:
    """A request of one turn."""
    turn = {"role": "user", "content": text}
    body = {"messages": [turn], "stream": stream, "max_tokens": max_tokens}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return request_bytes(body)


async def overhead(bundle: Path) -> Figures:
    """See the module."""
    asked = chat("What is red?", stream=False, max_tokens=1)
    with gateway(bundle) as served:
        await paced(served.http, asked, rate=RATE, seconds=1)
        before = served.cpu_s()
        answers = await paced(served.http, asked, rate=RATE, seconds=SECONDS)
        spent_ms = 1e3 * (served.cpu_s() - before)
    times = [1e3 * answer.whole_s for answer in answers]
    return {
        "overhead_refused": sum(answer.status != 200 for answer in answers),
        "overhead_p50_ms": round(percentile(times, 0.5), 2),
        "overhead_p99_ms": round(percentile(times, 0.99), 2),
        "overhead_cpu_ms": round(spent_ms / len(answers), 2),
    }


async def paced(port: int, request: bytes, *, rate: float, seconds: float) -> list[Answer]:
    """Sends requests at a steady rate, each when it is due, however many are under way."""
    idle: list[tuple[float, Connection]] = []

    async def one(at_s: float, stack: AsyncExitStack) -> Answer:
        if idle and time.perf_counter() - idle[-1][0] < KEPT_S:
            connection = idle.pop()[1]
        else:
            connection = await stack.enter_async_context(Connection(port))
        answer = await connection.ask(request, at_s=at_s)
        if not connection.is_closed:
            idle.append((time.perf_counter(), connection))
        return answer

    async with AsyncExitStack() as stack:
        began, asking = time.perf_counter(), []
        for at in range(int(rate * seconds)):
            due = began + at / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asking.append(asyncio.create_task(one(due, stack)))
        return await asyncio.gather(*asking)


async def stream(bundle: Path) -> Figures:
    """See the module."""
    asked = chat("What is red?", stream=True, max_tokens=STREAM_TOKENS)
    speeds, walls = [], []
    with gateway(bundle) as served:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(Connection(served.http)) for _ in range(STREAMS)
            ]
            for _ in range(STREAM_ROUNDS):
                began, before = time.perf_counter(), served.cpu_s()
                answers = await asyncio.gather(*(each.ask(asked) for each in connections))
                whole = f'"completion_tokens":{STREAM_TOKENS},'.encode()
                if any(whole not in answer.end for answer in answers):
                    raise RuntimeError("not all streams were complete")
                tokens = STREAMS * STREAM_TOKENS
                speeds.append(tokens / (served.cpu_s() - before))
                walls.append(tokens / (time.perf_counter() - began))
    return {
        "stream_tokens_per_core_s": round(max(speeds)),
        "stream_tokens_per_s": round(max(walls)),
    }


async def prepare(bundle: Path) -> Figures:
    """See the module."""
    text = gateway_pb2.ContentPart(text=WORDS * 25)
    question = gateway_pb2.ContentPart(text="What is in the image?")
    image = gateway_pb2.ContentPart(image=png(640, 480))
    with gateway(bundle) as served:
        options = channel_options()
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{served.grpc}", options=options
        ) as channel:
            stub = gateway_pb2_grpc.ChatServiceStub(channel)
            found: Figures = {}
            for name, parts in (("text", [text]), ("image", [image, question])):
                turn = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=parts)
                asked = gateway_pb2.PrepareRequest(messages=[turn])
                prompt = await stub.Prepare(asked)
                found[f"prepare_{name}_tokens"] = len(prompt.input_ids)
                before = served.cpu_s()

                async def ask(asked: gateway_pb2.PrepareRequest = asked) -> None:
                    await stub.Prepare(asked)

                await callers(ask)
                spent = served.cpu_s() - before
                found[f"prepare_{name}_per_core_s"] = round(PREPARED / spent)
    return found


async def callers(ask: Callable[[], Awaitable[None]]) -> None:
    """Asks so often by so many, one after the other each."""

    async def caller() -> None:
        for _ in range(PREPARED // CALLERS):
            await ask()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def overload(bundle: Path) -> Figures:
    """See the module."""
    asked = chat("What is red?", stream=False, max_tokens=1)
    peak = SLOTS / (SERVICE_MS / 1e3)
    stubs = (f"--slots={SLOTS}", f"--service-ms={SERVICE_MS}")
    with gateway(bundle, *stubs, flags=[f"--max-in-flight={2 * SLOTS}"]) as served:
        calm = await paced(served.http, asked, rate=0.9 * peak, seconds=OVERLOAD_S / 2)
        began = time.perf_counter()
        answers = await paced(served.http, asked, rate=10 * peak, seconds=OVERLOAD_S)
        took = time.perf_counter() - began
    counts = Counter(answer.status for answer in answers)
    refused = [1e3 * answer.whole_s for answer in answers if answer.status in (429, 503)]
    calm_rate = sum(answer.status == 200 for answer in calm) / (OVERLOAD_S / 2)
    return {
        "overload_peak_per_s": peak,
        "overload_calm_per_s": calm_rate,
        "overload_goodput_share": round(counts[200] / took / peak, 3),
        "overload_refused": len(refused),
        "overload_refusal_p99_ms": round(percentile(refused, 0.99), 1),
        "overload_lost": len(answers) - counts[200] - len(refused),
    }


PARTS: dict[str, Callable[[Path], Coroutine[Any, Any, Figures]]] = {
    "overhead": overhead,
    "stream": stream,
    "prepare": prepare,
    "overload": overload,
}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="What the gateway itself costs.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    found: Figures = {}
    for name in arguments.part or PARTS:
        figures = asyncio.run(PARTS[name](arguments.bundle))
        for figure, value in figures.items():
            goal = f" (goal {GOALS[figure]:g})" if figure in GOALS else ""
            print(f"{figure}: {value:g}{goal}", flush=True)
        found.update(figures)
    where = surroundings()
    cells = [where["date"], where["commit"], *(found.get(name, "-") for name in ROW)]
    print(f"| {' | '.join(str(cell) for cell in cells)} |")
    print(json.dumps({**found, "most_other_cores_in_use": others, **where}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
