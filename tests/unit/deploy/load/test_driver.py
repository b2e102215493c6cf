"""When requests are sent, and from when their times count; on a clock of the test's own."""

import asyncio

import pytest

from deploy.load.driver import Driver
from deploy.load.plan import LoadPlan
from deploy.load.records import Answer


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.now + seconds, len(self._sleepers), woken))
        await woken.wait()

    async def run(self) -> None:
        """Wakes one sleeper after the other, once nothing else is ready to go on."""
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                sleeper = min(self._sleepers, key=lambda sleeper: sleeper[:2])
                self._sleepers.remove(sleeper)
                self.now = sleeper[0]
                sleeper[2].set()


class Server:
    """Answers each request `seconds` after it was sent, its first text after half of that."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.at_once = self.most_at_once = 0

    async def ask(self, body: bytes) -> Answer:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.clock.sleep(self.seconds / 2)
        first = self.clock()
        await self.clock.sleep(self.seconds / 2)
        self.at_once -= 1
        return Answer(moments=(first, self.clock()), ended_s=self.clock())


async def driven(
    seconds: float, *, arrivals: list[float] | None, most: int | None, count: int = 4
) -> tuple[Driver, Server]:
    clock = Clock()
    server = Server(clock, seconds)
    driver = Driver(server.ask, clock=clock, sleep=clock.sleep)
    time = asyncio.create_task(clock.run())
    if arrivals is None:
        await driver.closed_loop([b""] * count, most or 1)
    else:
        await driver.open_loop([b""] * len(arrivals), arrivals, most=most)
    time.cancel()
    return driver, server


async def test_an_open_loop_sends_on_time_whatever_became_of_those_before() -> None:
    driver, server = await driven(10.0, arrivals=[0.0, 1.0, 2.0, 3.0], most=None)
    assert [record.sent_s for record in driver.records] == [100.0, 101.0, 102.0, 103.0]
    assert [record.ttft_s for record in driver.records] == [5.0] * 4
    assert server.most_at_once == 4


async def test_a_request_that_had_to_wait_for_a_place_counts_from_when_it_was_due() -> None:
    driver, server = await driven(10.0, arrivals=[0.0, 1.0, 2.0], most=1)
    assert server.most_at_once == 1
    assert [record.lag_s for record in driver.records] == [0.0, 9.0, 18.0]
    assert [record.e2e_s for record in driver.records] == [10.0, 19.0, 28.0]
    assert [record.ttft_s for record in driver.records] == [5.0, 14.0, 23.0]


async def test_a_closed_loop_keeps_so_many_at_work_until_all_are_answered() -> None:
    driver, server = await driven(10.0, arrivals=None, most=2, count=5)
    assert server.most_at_once == 2
    assert [record.sent_s for record in driver.records] == [100.0, 100.0, 110.0, 110.0, 120.0]
    assert all(record.e2e_s == 10.0 for record in driver.records)


async def test_what_was_answered_before_a_stop_is_kept_and_the_rest_counted() -> None:
    clock = Clock()
    server = Server(clock, 10.0)
    told: list[object] = []
    enough = asyncio.Event()

    def tell(record: object) -> None:
        told.append(record)
        if len(told) == 4:
            enough.set()

    driver = Driver(server.ask, clock=clock, sleep=clock.sleep, on_record=tell)
    time = asyncio.create_task(clock.run())
    work = asyncio.create_task(driver.closed_loop([b""] * 100, 2))
    await enough.wait()
    await asyncio.sleep(0)  # both users have sent their next
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    time.cancel()
    assert (len(driver.records), driver.unfinished) == (4, 2)
    assert told == driver.records


def test_arrivals_have_the_asked_rate_and_are_the_same_of_one_seed() -> None:
    plan = LoadPlan(url="", rate=20.0, requests=4000)
    moments = plan.arrivals()
    assert moments is not None and moments == plan.arrivals()
    assert list(moments) == sorted(moments)
    assert len(moments) / moments[-1] == pytest.approx(20.0, rel=0.05)
    assert LoadPlan(url="", rate=20.0, requests=4, seed=1).arrivals() != moments[:4]
    assert LoadPlan(url="").arrivals() is None
