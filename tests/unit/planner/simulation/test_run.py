"""Whole runs: nothing is lost, more helps, seeds decide, and steps taken together are exact."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from planner.costs import Costs
from planner.fields import PlanError
from planner.load import ImageSize, Load
from planner.simulation import decoder
from planner.simulation.outcome import Outcome
from planner.simulation.run import Plan, Simulation, simulate
from tests.unit.planner.costs_file import costs_object

LOAD = Load(
    images=0.6,
    texts=0.4,
    sizes=(ImageSize(width=448, height=448), ImageSize(width=224, height=224)),
    tokens_out=48,
    seconds=40.0,
    warm_up_s=5.0,
)
PLAN = Plan(replicas=2, decoders=2)


def costs(**changed: Any) -> Costs:
    return Costs.of(costs_object(**changed))


def limits(**changed: int) -> dict[str, int]:
    return {**costs_object()["decoder"], **changed}


@pytest.mark.parametrize(
    ("plan", "changed", "load"),
    [
        (PLAN, {}, LOAD),
        (Plan(replicas=0, decoders=3, whole=True), {}, LOAD),
        (Plan(replicas=0, decoders=2, most_replicas=4), {}, LOAD),
        (PLAN, {}, replace(LOAD, repeat=0.7)),
        (PLAN, {"decoder": limits(slots=2, waiting=1)}, replace(LOAD, images=2.0)),
        (PLAN, {"max_queued_patches": 1000}, replace(LOAD, images=2.0)),
        (PLAN, {"decoder": limits(kv_tokens=700, max_context=500)}, LOAD),
    ],
)
def test_every_request_ends_once(plan: Plan, changed: dict[str, Any], load: Load) -> None:
    simulation = Simulation(costs(**changed), load, plan)
    simulation.run()
    for answer in simulation.answers:
        assert answer.refused == (answer.last is None)
        if answer.last is not None and answer.first is not None:
            assert answer.arrival.moment < answer.first <= answer.last


def test_full_queues_refuse() -> None:
    rush = replace(LOAD, images=4.0, seconds=15.0)
    assert simulate(costs(decoder=limits(slots=2, waiting=1)), rush, PLAN).refused > 0
    assert simulate(costs(max_queued_patches=1000), rush, PLAN).refused > 0


def test_too_little_kv_preempts_and_loses_nothing() -> None:
    tight = costs(decoder=limits(kv_tokens=700, max_context=500))
    long = replace(LOAD, texts=2.0, images=0.0, tokens_in=32, tokens_out=160, seconds=20.0)
    simulation = Simulation(tight, long, Plan(replicas=0, decoders=1))
    assert simulation.run().preemptions > 0
    assert all(answer.last is not None for answer in simulation.answers)


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    first = simulate(costs(), LOAD, PLAN)
    assert simulate(costs(), LOAD, PLAN) == first
    assert simulate(costs(), replace(LOAD, seed=1), PLAN) != first


def test_more_helps_and_a_higher_load_does_not() -> None:
    waits = [
        simulate(costs(), replace(LOAD, images=1.5), Plan(replicas=n, decoders=n)).ttft_p99_s
        for n in (1, 2, 4)
    ]
    assert waits == sorted(waits, reverse=True)
    loads = [simulate(costs(), replace(LOAD, images=n), PLAN).ttft_p99_s for n in (0.2, 1.5)]
    assert loads == sorted(loads)


def test_repeated_images_are_neither_encoded_nor_prefilled_again() -> None:
    busy = replace(LOAD, images=1.5)
    fresh = simulate(costs(), busy, PLAN)
    again = simulate(costs(), replace(busy, repeat=0.9), PLAN)
    assert again.replica_use < 0.75 * fresh.replica_use
    assert again.ttft_p50_s < fresh.ttft_p50_s


def test_steps_taken_together_are_the_steps_taken_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run() -> Outcome:
        return simulate(costs(step_spread=[1.0] * 101), LOAD, PLAN)

    together = run()
    monkeypatch.setattr(decoder, "_MOST_STEPS", 1)
    apart = run()
    assert apart.events > 1.5 * together.events
    expected = {name: pytest.approx(value, rel=1e-6) for name, value in asdict(together).items()}
    assert asdict(replace(apart, events=together.events)) == expected


def test_steps_are_slower_beside_a_pass_and_only_there() -> None:
    def busy(load: Load, **changed: Any) -> float:
        alone = costs(step_spread=[1.0] * 101, cores=[["replica"], ["decoder"]], **changed)
        return simulate(alone, load, Plan(replicas=1, decoders=1)).decoder_use

    twice = {"step_beside_pass": 2.0}
    texts = replace(LOAD, images=0.0)
    assert busy(texts, **twice) == busy(texts)
    mixed = replace(LOAD, texts=0.6, images=0.4, seconds=120.0)
    assert 1.05 < busy(mixed, **twice) / busy(mixed) < 2.0
    # Machines that share nothing do not slow each other down.
    apart = costs(step_spread=[1.0] * 101)
    assert simulate(replace(apart, step_beside_pass=2.0), mixed, PLAN) == simulate(
        apart, mixed, PLAN
    )


def test_a_time_without_requests_is_refused() -> None:
    with pytest.raises(PlanError, match="seconds is 1, expected so many that a request comes"):
        simulate(costs(), replace(LOAD, images=0.01, texts=0.0, seconds=1.0, warm_up_s=0.5), PLAN)


def test_the_autoscaler_makes_replicas_more_under_load() -> None:
    burst = replace(LOAD, images=3.0, tokens_out=8)
    fixed = simulate(costs(), burst, Plan(replicas=1, decoders=6))
    scaled = simulate(costs(), burst, Plan(replicas=1, decoders=6, most_replicas=12))
    assert scaled.encode_p99_s < fixed.encode_p99_s / 2
