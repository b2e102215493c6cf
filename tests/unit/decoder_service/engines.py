"""An engine over a fake runner, and what tests do with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from decoder_service.engine.engine import Engine
from decoder_service.engine.stream import SequenceStream
from decoder_service.sequence.request import Completion, Request, Token
from tests.unit.decoder_service.fakes import FakeRunner, make_executor, random_features


@asynccontextmanager
async def running_engine(
    folder: Path,
    *,
    slots: int = 4,
    waiting: int = 64,
    chunk: int = 8,
    mixed: int = 3,
    budget: int | None = None,
    draft_tokens: int = 0,
    on_death: Callable[[], None] = lambda: None,
) -> AsyncIterator[tuple[Engine, FakeRunner]]:
    executor, runner = make_executor(
        folder,
        max_sequences=slots,
        token_budget=budget,
        chunk=chunk,
        mixed=mixed,
        preemption_margin=1.0,
        draft_tokens=draft_tokens,
    )
    engine = Engine(
        executor=executor,
        max_waiting=waiting,
        on_death=on_death,
    )
    async with engine:
        yield engine, runner


async def collect(stream: SequenceStream) -> tuple[list[Token], Completion]:
    tokens: list[Token] = []
    with stream:
        while True:
            for event in await stream.next_events():
                if isinstance(event, Completion):
                    return tokens, event
                tokens.append(event)


async def run(engine: Engine, request: Request, feature_seed: int = 0) -> list[int]:
    stream = engine.submit(request)
    for index, span in enumerate(request.spans):
        stream.set_features(index, random_features(feature_seed + index, span.length))
    tokens, _ = await collect(stream)
    return [token.token_id for token in tokens]


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the engine is another thread: there is no event to await

    await asyncio.wait_for(poll(), 10)


def is_idle(engine: Engine) -> Callable[[], bool]:
    return lambda: engine.load().running_count == 0 and engine.load().waiting_count == 0
