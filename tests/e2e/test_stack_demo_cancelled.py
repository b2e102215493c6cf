"""Streams that are cancelled at any moment leave nothing behind in the services: a soak in short.

`make soak` does it for an hour, with Ray and all kinds of answers between.
"""

import asyncio

import pytest

from tests.soak.bank import Bank
from tests.soak.census import Holding, census
from tests.soak.load import Load, Wanted
from tests.support.bundles import demo_bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.waiting import wait_until

FIRST, CANCELLED = 200, 200  # the first let pools and allocators find their size
# Threads and descriptors that pools may still start late; one of twenty streams would leave more.
LATE = 8
MOST_GROWN = 36 << 20  # bytes of a tier, whose allocators settle; half of the large images sent
TIERS = {"gateway": "gateway", "decoder": "decoder", "vision": "front"}


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(demo_bundle("int4"), ray=False)


def held(served: ServedStack) -> dict[str, Holding]:
    return census({role: served.stack.pid(tier) for tier, role in TIERS.items()})


def test_cancelled_streams_leave_nothing_behind(served: ServedStack) -> None:
    url = served.stack.http_url.removesuffix("/v1")
    load = Load(url, Bank.drawn(large=8), Wanted(requests=0, cancelled=0))
    asyncio.run(load.cancel(FIRST))
    served.wait_until_idle()
    before = held(served)
    asyncio.run(load.cancel(CANCELLED))
    served.wait_until_idle()
    assert load.ledger.wrong.total() == 0, load.ledger.notes
    assert load.ledger.cut.total() >= 0.9 * (FIRST + CANCELLED), load.ledger
    assert served.load().kv_token_count == 0

    def is_as_before() -> bool:
        now = held(served)
        return all(
            now[role].descriptors <= before[role].descriptors + LATE
            and now[role].threads <= before[role].threads + LATE
            for role in TIERS.values()
        )

    wait_until(is_as_before, what=f"descriptors and threads as in {before}", timeout_s=20.0)
    after = held(served)
    grown = {role: after[role].anonymous - before[role].anonymous for role in TIERS.values()}
    assert max(grown.values()) < MOST_GROWN, grown
