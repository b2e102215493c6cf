"""Real decoder processes that die, hang and are stopped under streams: no answer is different.

The gateway runs in this process, between two decoders and a scripted vision tier, whose features
are another time's numbers if it is asked again.
"""

import asyncio
import json
import signal
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.app import Gateway
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import tensor_pb2
from tests.support.bundles import bundle
from tests.support.decoder_process import DecoderProcess
from tests.unit.gateway.fakes import FakeVision
from tests.unit.gateway.stage import about_images, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = 600  # tokens of a long answer, which the tiny model writes in a second or two
SEEN = 10  # of them before something happens
PENALTIES = {"repetition_penalty": 1.1, "presence_penalty": 0.3, "frequency_penalty": 0.2}
SHAPE = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}, "minItems": 60}},
    "required": ["words"],
}
FREE = {"ignore_eos": True, "logprobs": True}
QUESTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"messages": user("Tell me a long story."), "temperature": 0, **FREE},
    "sampled": {"messages": user("And now another."), "temperature": 1.0, "seed": 3, **FREE},
    "penalized": {
        "messages": user("Say it again."),
        "temperature": 0.8,
        "seed": 4,
        "n": 2,
        **FREE,
        **PENALTIES,
    },
    "image": {"messages": about_images((64, 64), (96, 64)), "temperature": 0, **FREE},
    "least": {"messages": user("Hm?"), "temperature": 1.0, "seed": 5, "min_tokens": LENGTH - 20},
    "schema": {
        "messages": user("Which words?"),
        "temperature": 1.0,
        "seed": 6,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "shape", "schema": SHAPE},
        },
    },
}


class Decoders:
    """Two decoder processes, each of which comes back at its own port."""

    def __init__(self, path: Path, log_dir: Path, *flags: str) -> None:
        self._path = path
        self._log_dir = log_dir
        self._flags = flags
        self._ended: set[int] = set()
        self.ports = [free_port() for _ in range(2)]
        self.running: list[tuple[DecoderProcess, ExitStack]] = [self._start(at) for at in range(2)]

    def _start(self, at: int) -> tuple[DecoderProcess, ExitStack]:
        flags = ("--threads=1", "--max-context=2048", "--max-sequences=8", *self._flags)
        held = ExitStack()
        log = self._log_dir / f"decoder-{at}.log"
        process = DecoderProcess(self._path, log, (f"--port={self.ports[at]}", *flags))
        return held.enter_context(process), held

    def end(self, at: int, number: signal.Signals) -> None:
        """Sends one of them a signal."""
        self._ended.add(at)
        self.running[at][0].process.send_signal(number)

    async def restore(self, at: int) -> None:
        """Starts one anew that was sent a signal."""
        process, held = self.running[at]
        if at not in self._ended:
            return
        self._ended.remove(at)
        process.process.kill()
        await asyncio.to_thread(held.close)
        self.running[at] = await asyncio.to_thread(self._start, at)

    def close(self) -> None:
        for process, held in self.running:
            process.process.kill()
            held.close()


class Vision(FakeVision):
    """Features that a real decoder takes."""

    def _chunk(self, level: int, row: int, rows: int) -> tensor_pb2.FeatureChunk:
        chunk = super()._chunk(level, row, rows)
        chunk.crc32 = zlib.crc32(chunk.values.data)
        return chunk


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Told:
    """What a stream came to; by choice, but for the usage."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.tokens: dict[int, list[str]] = {}
        self.ends: dict[int, str] = {}
        self.logprobs: dict[int, list[float]] = {}
        self.usage: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Adds one event."""
        if event.get("usage"):
            self.usage = event["usage"]
            # What was cached is each decoder's own matter.
            self.usage.pop("prompt_tokens_details", None)
        for choice in event["choices"]:
            at = choice["index"]
            self.texts[at] = self.texts.get(at, "") + (choice["delta"].get("content") or "")
            if choice["finish_reason"]:
                self.ends[at] = choice["finish_reason"]
            for token in (choice.get("logprobs") or {}).get("content") or ():
                self.tokens.setdefault(at, []).append(token["token"])
                self.logprobs.setdefault(at, []).append(token["logprob"])


class Fleet:
    """A gateway before two decoders."""

    def __init__(self, decoders: Decoders, gateway: Gateway, client: httpx.AsyncClient) -> None:
        self.decoders = decoders
        self._gateway = gateway
        self._client = client

    async def answer(self, question: dict[str, Any], seen: Callable[[], None]) -> Told:
        """What a client gets of a stream; `seen` is called when a little of it has come."""
        body = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": LENGTH}
        told, pieces, has_ended = Told(), 0, False
        path = "/v1/chat/completions"
        async with self._client.stream("POST", path, json={**body, **question}) as response:
            async for line in response.aiter_lines():
                assert not line.startswith("event: error"), line
                has_ended |= line == "data: [DONE]"
                if line.startswith("data: {"):
                    told.take(json.loads(line.removeprefix("data: ")))
                    pieces += 1
                    if pieces == SEEN:
                        seen()
        assert has_ended and told.usage is not None
        return told

    async def answers(self, disturb: Callable[[], None] = lambda: None) -> dict[str, Told]:
        """All questions at once; `disturb` is called when each has said a little."""
        waiting = set(QUESTIONS)

        def seen(name: str) -> None:
            waiting.discard(name)
            if not waiting:
                disturb()

        asked = [self.answer(asks, partial(seen, name)) for name, asks in QUESTIONS.items()]
        return dict(zip(QUESTIONS, await asyncio.gather(*asked), strict=True))

    async def moves(self) -> float:
        """Answers that have been moved."""
        lines = (await self._client.get("/metrics")).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if "gateway_moves_total{" in line)

    async def settled(self) -> None:
        """Waits until the gateway knows that both decoders are there."""

        async def poll() -> None:
            while await self._there() < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # asked over the wire: there is no event

        await asyncio.wait_for(poll(), 60)

    async def _there(self) -> float:
        """Decoders that get calls; one that is back has a trial first."""
        lines = (await self._client.get("/metrics")).text.splitlines()
        states = [f'addresses{{state="{state}",tier="decoder"}}' for state in ("serving", "trial")]
        return sum(float(line.split()[-1]) for line in lines if any(s in line for s in states))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    path = bundle("tied")
    opened = Bundle.open(path)
    decoders = await asyncio.to_thread(
        Decoders, path, tmp_path_factory.mktemp("decoders"), "--drain-timeout-s=0.05"
    )
    try:
        async with Vision(opened) as vision:
            config = GatewayConfig(
                bundle=str(path),
                http_port=0,
                grpc_port=0,
                vision=vision.address,
                decoder=",".join(f"127.0.0.1:{port}" for port in decoders.ports),
                watch_interval_s=0.2,
                drain_timeout_s=1.0,
            )
            async with (
                Gateway(config, opened) as gateway,
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{gateway.http_port}", timeout=120.0
                ) as client,
            ):
                yield Fleet(decoders, gateway, client)
    finally:
        decoders.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def undisturbed(fleet: Fleet) -> dict[str, Told]:
    whole = await fleet.answers()
    assert await fleet.moves() == 0
    return whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP], ids=str)
async def test_every_answer_is_what_it_would_have_been(
    fleet: Fleet, undisturbed: dict[str, Told], number: signal.Signals
) -> None:
    await fleet.decoders.restore(0)
    await fleet.settled()
    before = await fleet.moves()
    disturbed = await fleet.answers(lambda: fleet.decoders.end(0, number))
    assert await fleet.moves() > before
    for name, whole in undisturbed.items():
        assert disturbed[name].texts == whole.texts, name
        assert disturbed[name].tokens == whole.tokens, name
        assert disturbed[name].ends == whole.ends, name
        assert disturbed[name].usage == whole.usage, name
        # Of the float32 graph: its rows are rounded by what is computed beside them.
        for at, logprobs in whole.logprobs.items():
            assert disturbed[name].logprobs[at] == pytest.approx(logprobs, abs=1e-3), name
