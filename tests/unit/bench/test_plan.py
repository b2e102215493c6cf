"""What the benchmark of the simulator makes of slices: samples, speeds, and shares of both."""

from dataclasses import replace

import numpy as np
import pytest

from planner.costs import Costs
from planner.load import Load
from planner.simulation.run import Plan, Simulation
from tests.bench.plan.clients import Seen
from tests.bench.plan.compare import Slice, row
from tests.bench.plan.sample import FIGURES, Sample
from tests.bench.plan.speed import Speed
from tests.unit.planner.costs_file import costs_object

ONE = Speed(1.0, 1.0, 1.0)


def sample(firsts: list[float], gaps: list[float]) -> Sample:
    return Sample(np.array(firsts), np.array(gaps), np.ones(len(gaps)))


def test_gaps_count_while_requests_come() -> None:
    answer = Seen(first_s=1.0, gaps=[0.5, 0.5, 0.25], late_s=0.0, began=8.0)
    assert answer.gaps_until(9.6) == [0.5, 0.5]
    assert answer.gaps_until(9.0) == []
    assert Sample.seen([answer, answer], 9.6).gaps.tolist() == [0.5] * 4


def test_percentiles_of_joined_slices_are_those_of_all_their_numbers() -> None:
    draw = np.random.default_rng(3)
    parts = [sample(list(draw.random(37)), list(draw.random(211))) for _ in range(4)]
    joined = Sample.joined(parts)
    firsts = np.sort(np.concatenate([one.firsts for one in parts]))
    assert joined.figure("ttft_p50_s") == firsts[73]
    assert joined.figure("ttft_p99_s") == np.quantile(firsts, 0.99, method="inverted_cdf")


def test_a_simulated_sample_has_the_figures_of_its_outcome() -> None:
    load = Load(images=0.0, texts=3.0, seconds=20.0, warm_up_s=0.0)
    simulation = Simulation(Costs.of(costs_object()), load, Plan(replicas=0, decoders=1))
    outcome, made = simulation.run(), Sample.of(simulation)
    for name in FIGURES:
        assert made.figure(name) == pytest.approx(getattr(outcome, name))


def test_a_speed_multiplies_each_kind_of_work() -> None:
    processors = {"gateway": {"request_s": 0.002, "idle": 0.01}}
    costs = Costs.of(costs_object(processors=processors))
    slower = Speed(2.0, 3.0, 4.0).scaled(costs)
    assert slower.encode.seconds(784) == pytest.approx(4 * costs.encode.seconds(784))
    assert slower.steps.decode_s(2) == pytest.approx(2 * costs.steps.decode_s(2))
    assert slower.processors["gateway"].request_s == pytest.approx(0.008)
    assert slower.overhead_s == pytest.approx(4 * costs.overhead_s)
    prompt = [(0, 100)]
    assert slower.steps.seconds(0, 0, prompt) == pytest.approx(
        3 * costs.steps.seconds(0, 0, prompt)
    )
    assert ONE.scaled(costs) == costs
    assert Speed.between(ONE, Speed(3.0, 1.0, 2.0)) == Speed(2.0, 1.0, 1.5)


def test_a_row_says_how_far_off_the_simulator_is_and_could_have_been() -> None:
    made = Slice(speed=ONE, rate=1.0, real=sample([1.0, 2.0], [0.1]), replica_use=0.1,
                 simulated=sample([1.5, 3.0], [0.1]), decoder_use=0.4, first_core_use=0.2,
                 late_p99_s=0.0)  # fmt: skip
    other = replace(made, simulated=sample([1.0, 2.0], [0.1]))
    found = row(0.4, [made, other])
    assert found["requests"] == 4
    assert found["ttft_p99_s"]["off"] == pytest.approx(0.5)
    assert found["ttft_p99_s"]["least"] == pytest.approx(0.0)
    assert found["ttft_p99_s"]["most"] == pytest.approx(0.5)
    assert found["itl_p50_s"]["off"] == 0.0
