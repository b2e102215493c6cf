"""Every row of `make faults`, a small part of it, at a gateway between tiers that cost nothing."""

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from tests.faults import connections, deadlines, doors, frames, messages, overload, schemas, scrapes
from tests.faults.watch import canary
from tests.soak.load import until
from tests.support.prompts import png
from tests.unit.gateway.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(bundle: Bundle) -> AsyncIterator[Stage]:
    async with staged(bundle, max_in_flight=8) as started:
        yield started


@pytest.fixture
def at(stage: Stage) -> doors.Doors:
    """The gateway's doors; its tiers are fakes."""
    stage.decoder.reset()
    stage.will_say("Hi there")
    return doors.Doors(
        url=str(stage.http.base_url).rstrip("/"),
        grpc={"gateway": f"127.0.0.1:{stage.gateway.grpc_port}"},
        metrics={},
        key="any",
        image=png(64, 64),
    )


TIMES = (" ms", "health took", "of the peak")  # which a busy machine may miss


async def test_a_good_gateway_has_no_faults(at: doors.Doors) -> None:
    for row in (
        await connections.try_connections(at, 20),
        await scrapes.try_scrapes(at, 20),
        await overload.try_overload(at, 24, 0.5),
    ):
        assert row.figures
        assert not [fault for fault in row.faults if not any(word in fault for word in TIMES)]


async def test_an_answer_that_is_not_as_its_schema_says_is_seen(
    at: doors.Doors, stage: Stage
) -> None:
    stage.will_say('{"field_0": 1}')
    found = await schemas.try_schemas(at, 2)
    assert found.figures == {"asked": 2, "answered": 2}
    assert [fault.partition(" were")[0] for fault in found.faults] == ["1 of 2"]


async def test_a_deadline_ends_a_call_that_would_go_on(at: doors.Doors, stage: Stage) -> None:
    stage.decoder.stall_after = 0
    async with frames.Connection(at.grpc["gateway"]) as connection:
        late = await deadlines._late(connection, at, *deadlines.SHORT["0.05 s"])
    assert -deadlines.EARLY_S <= late < 5


async def test_a_call_that_ends_before_its_deadline_is_seen(
    at: doors.Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "SHORT", {"20 s": ("20S", 20.0)})
    found = await deadlines.try_deadlines(at, 1)
    assert any("before its deadline" in fault for fault in found.faults)


async def test_a_canary_that_sings_another_song_is_seen(at: doors.Doors, stage: Stage) -> None:
    async with canary(at, "key") as seen:
        stage.will_say("Another")
        assert await until(lambda: seen.answers > 1, 20)
    assert seen.faults and seen.faults[0].startswith("canary: 200")


async def test_damaged_messages_are_drawn_for_every_method() -> None:
    drawn = {messages._drawn(random.Random(seed), "vision")[0] for seed in range(100)}
    assert drawn == {*messages.METHODS["vision"], messages.NOBODYS}
