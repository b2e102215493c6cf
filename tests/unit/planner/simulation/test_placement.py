"""Where simulated images go: where the vision tier's own front would send them."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest

from planner.costs import Costs
from planner.simulation import encoder
from planner.simulation.clock import Clock
from planner.simulation.encoder import Encoders, Replica
from tests.unit.planner.costs_file import costs_object
from vision_service.routing.desk import Desk
from vision_service.scaling.cost import Cost, Work
from vision_service.scaling.placement import Outlook, Report, in_order, most_ahead_s

COSTS = Costs.of(costs_object())
SIZES = (256, 784, 3072)  # patches, of half a second to eight
TOWER = Cost(patch_s=COSTS.encode.linear_s, pair_s=COSTS.encode.square_s)


def choice_of_the_front(clock: Clock, replicas: Collection[Replica], work: Work) -> Any:
    """The replica that a front's router is told by its desk, of fresh reports; None: wait."""
    desk = Desk(lambda: clock.now)
    names = {f"replica {number}": one for number, one in enumerate(replicas)}
    desk.replicas(list(names))
    for name, one in names.items():
        ahead_s = one.waiting_s + one.running_s
        desk.heard(name, Report(beat=1, ahead_s=ahead_s, cost=TOWER))
    order = desk.choose(desk.open(work).number, ahead_s=most_ahead_s(len(names)))
    return names[order[0]] if order else None


@pytest.mark.parametrize(("count", "busy"), [(1, 0.8), (5, 0.7), (5, 1.3)])
def test_an_image_goes_where_the_front_would_send_it(
    count: int, busy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    encoders = Encoders(clock, COSTS, count=count)
    chosen = list[Replica | None]()

    def compared(
        outlooks: Mapping[Replica, Outlook], work: Work, *, ahead_s: float
    ) -> list[Replica] | None:
        order = in_order(outlooks, work, ahead_s=ahead_s)
        chosen.append(order[0] if order else None)
        assert chosen[-1] is choice_of_the_front(clock, encoders.replicas, work)
        return order

    monkeypatch.setattr(encoder, "in_order", compared)
    done = list[int]()
    draw = np.random.default_rng(2)
    mean_s = sum(map(COSTS.encode.seconds, SIZES)) / len(SIZES)
    moments = np.cumsum(draw.exponential(mean_s / count / busy, 150))
    for moment, patches in zip(moments, draw.choice(SIZES, 150), strict=True):
        clock.at(
            float(moment),
            lambda patches=int(patches): encoders.submit(  # type: ignore[misc]
                patches, lambda: done.append(patches), lambda: pytest.fail("a replica was full")
            ),
        )
    clock.run()
    assert len(done) == 150
    assert {*chosen} >= {*encoders.replicas}
    assert (None in chosen) == (count > 1)  # who is alone orders what waits by itself
