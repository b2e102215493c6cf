"""The search: what it finds meets the targets, and one less does not."""

from dataclasses import replace

from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.search import meets, ratios, smallest
from planner.simulation.run import Plan, simulate
from tests.unit.planner.costs_file import costs_object

COSTS = Costs.of(costs_object())
LOAD = Load(
    images=1.0, sizes=(ImageSize(width=448, height=448),), tokens_out=48, seconds=40.0,
    warm_up_s=10.0,
)  # fmt: skip


def test_the_plan_meets_the_targets_and_one_less_of_either_does_not() -> None:
    found = smallest(COSTS, LOAD, most_nodes=50)
    assert found.meets
    best = found.outcome
    for replicas, decoders in ((-1, 0), (0, -1)):
        less = Plan(replicas=best.replicas + replicas, decoders=best.decoders + decoders)
        if min(less.replicas, less.decoders) >= 1:
            assert not meets(simulate(COSTS, LOAD, less), LOAD)


def test_targets_that_nothing_meets_are_said_to_be_missed() -> None:
    assert not smallest(COSTS, replace(LOAD, ttft_s=0.01, seconds=20.0), most_nodes=6).meets


def test_other_ratios_have_as_many_nodes_and_both_kinds() -> None:
    curve = list(ratios(COSTS, replace(LOAD, seconds=20.0), 5))
    assert [(one.replicas, one.decoders) for one in curve] == [(1, 4), (2, 3), (3, 2), (4, 1)]
    assert list(ratios(COSTS, replace(LOAD, images=0.0, texts=1.0), 5)) == []
