"""Samples of a run: taken while it lasts, written down at once, read again for the verdict."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.soak.census import Holding, shared_memory_bytes
from tests.soak.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment.

    Attributes:
        at_s: Since the run began.
        rest: The number of the rest it was taken in; None: under load.
        held: What each role's processes hold.
        shm: Bytes in /dev/shm, whoever's they are.
        work: What the tiers say of their work.
    """

    at_s: float
    rest: int | None
    held: Mapping[str, Holding]
    shm: int
    work: Mapping[str, float]


class Sampler:
    """Takes samples of a site and appends each to a file, one JSON object a line."""

    def __init__(self, site: Site, path: Path) -> None:
        self._site, self._path = site, path
        self._began_s = time.monotonic()
        self._lock = asyncio.Lock()
        path.write_text("")

    async def take(self, rest: int | None = None) -> None:
        """One sample, in a thread."""
        async with self._lock:
            await asyncio.to_thread(self._take, rest)

    @asynccontextmanager
    async def every(self, seconds: float) -> AsyncIterator[None]:
        """Takes one every so many seconds while it is entered."""

        async def go_on() -> None:
            while True:
                await self.take()
                await asyncio.sleep(seconds)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()

    def _take(self, rest: int | None) -> None:
        sample = Sample(
            at_s=round(time.monotonic() - self._began_s, 2),
            rest=rest,
            held=self._site.holdings(),
            shm=shared_memory_bytes(),
            work=self._site.at_work(),
        )
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")


def read(path: Path) -> list[Sample]:
    """What a sampler has written."""
    return [*_read(path)]


def _read(path: Path) -> Iterator[Sample]:
    for line in path.read_text().splitlines():
        told = json.loads(line)
        told["held"] = {role: Holding(**held) for role, held in told["held"].items()}
        yield Sample(**told)
