"""`tandem bench --url`: runs a load from start to end, or until the user stops it."""

import asyncio
import signal
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn

from deploy.load.bodies import bodies
from deploy.load.client import LoadClient
from deploy.load.driver import Driver
from deploy.load.figures import Figures, figures
from deploy.load.plan import LoadPlan, base_url
from deploy.load.records import Record
from deploy.terminal.screen import CommandError

STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Figures, what they are of, and the signal that ended the load early, if one did."""

    figures: Figures
    records: Sequence[Record]
    stopped_by: int | None = None


def run(
    notes: Console,
    plan: LoadPlan,
    *,
    api_key: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Outcome:
    """Asks as the plan says, with a progress bar on `notes`; a stop signal ends it early.

    Raises:
        CommandError: nothing answers at the URL, or the warm-up fails.
    """
    plan = replace(plan, url=base_url(plan.url))
    client = LoadClient(plan.url, api_key=api_key, tls=tls, timeout_s=plan.timeout_s)
    return asyncio.run(_run(notes, plan, client))


async def _run(notes: Console, plan: LoadPlan, client: LoadClient) -> Outcome:
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopped, number)
    async with client:
        with _bar(notes) as progress:
            load = _Load(plan, client, progress)
            work = asyncio.create_task(load.run())
            either: list[asyncio.Future[Any]] = [work, stopped]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
            if not work.cancelled():
                work.result()
    driver = load.driver
    return Outcome(
        figures=figures(plan, load.model, driver.records, unfinished=driver.unfinished),
        records=driver.records,
        stopped_by=stopped.result() if stopped.done() else None,
    )


def _stop(stopped: "asyncio.Future[int]", number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)


def _bar(notes: Console) -> Progress:
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[failed]}"))
    return Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal)


class _Load:
    """The steps of a load: model, bodies, warm-up, and the measured requests."""

    def __init__(self, plan: LoadPlan, client: LoadClient, progress: Progress) -> None:
        self.model = plan.model or ""
        self.driver = Driver(client.ask, clock=time.perf_counter, on_record=self._tell)
        self._plan = plan
        self._client = client
        self._progress = progress
        self._task = progress.add_task("preparing", total=None, failed="")
        self._failed = 0

    async def run(self) -> None:
        plan = self._plan
        self.model = self.model or await self._client.first_model()
        made = await asyncio.to_thread(lambda: list(bodies(plan, self.model)))
        await self._warm_up(made[: plan.warm_ups])
        self._progress.update(self._task, description="asking", total=plan.requests)
        measured, arrivals = made[plan.warm_ups :], plan.arrivals()
        if arrivals is None:
            await self.driver.closed_loop(measured, plan.concurrency or 1)
        else:
            await self.driver.open_loop(measured, arrivals, most=plan.concurrency)

    async def _warm_up(self, made: Sequence[bytes]) -> None:
        self._progress.update(self._task, description="warming up")
        for body in made:
            answer = await self._client.ask(body)
            if answer.error is not None:
                raise CommandError(f"the warm-up at {self._plan.url} failed: {answer.error}")

    def _tell(self, record: Record) -> None:
        self._failed += record.answer.error is not None
        failed = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=1, failed=failed)
