"""Services that share cores: what one does there the others wait for, and nothing else changes."""

from dataclasses import replace
from typing import Any

import pytest

from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.outcome import Outcome
from planner.simulation.run import Plan, Simulation, simulate
from tests.unit.planner.costs_file import costs_object

SIZE = ImageSize(width=448, height=448)
LOAD = Load(images=0.3, texts=0.3, sizes=(SIZE,), tokens_out=48, seconds=60.0, warm_up_s=0.0)
PLAN = Plan(replicas=1, decoders=1)
TIMES = ("ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s", "encode_p99_s")
GATEWAY = {"request_s": 0.01, "image_s": 0.004, "patch_s": 2e-6, "token_s": 0.004, "idle": 0.0}


def outcome(cores: list[list[str]], load: Load = LOAD, **processors: dict[str, float]) -> Outcome:
    found = costs_object(step_spread=[1.0] * 101, cores=cores, processors=processors)
    return simulate(Costs.of(found), load, PLAN)


def times(one: Outcome) -> dict[str, float]:
    return {name: getattr(one, name) for name in TIMES}


def test_a_core_that_is_shared_with_nobody_is_one_s_own() -> None:
    alone = times(outcome([["decoder"], ["gateway"], ["client"], ["front"]]))
    assert alone == pytest.approx(times(outcome([])), rel=1e-6)


def test_what_a_request_s_way_costs_its_processors_is_in_the_measured_way() -> None:
    # 0.01 s were measured; a gateway with nothing else to do takes part of them, not more.
    gateway = {"request_s": 0.004, "token_s": 0.001}
    text = replace(LOAD, images=0.0, texts=0.05)
    found = outcome([["gateway"]], text, gateway=gateway).ttft_p50_s
    assert found == pytest.approx(outcome([], text).ttft_p50_s, rel=1e-6)


def test_what_is_spent_beside_a_measured_way_makes_nobody_wait_who_is_alone() -> None:
    # Ten times what the way was measured to take: most of it lies beside the way, on the core.
    heavy = {"image_s": 0.3, "request_s": 0.1}
    rare = replace(LOAD, images=0.02, texts=0.0, seconds=300.0, arrivals_cv=0.0)
    found = outcome([["front"], ["gateway"], ["client"]], rare, front=heavy, client=heavy)
    assert found.ttft_p50_s == pytest.approx(outcome([], rare).ttft_p50_s, rel=0.01)
    beside = outcome([["replica", "front"]], rare, front=heavy)
    assert beside.encode_p99_s > outcome([], rare).encode_p99_s + 0.05


def test_a_gateway_on_the_replica_s_core_stretches_its_passes() -> None:
    apart = outcome([["replica", "front"], ["gateway", "client"]], gateway=GATEWAY)
    together = outcome([["replica", "front", "gateway", "client"]], gateway=GATEWAY)
    assert together.encode_p99_s > 1.05 * apart.encode_p99_s
    assert together.replica_use == pytest.approx(apart.replica_use, rel=0.02)


def test_a_gateway_on_the_decoder_s_core_makes_tokens_slower() -> None:
    apart = outcome([["gateway"]], gateway=GATEWAY)
    together = outcome([["decoder", "gateway"]], gateway=GATEWAY)
    assert together.itl_p50_s > apart.itl_p50_s + 0.5 * GATEWAY["token_s"]


def test_half_a_core_takes_twice_as_long() -> None:
    rare = replace(LOAD, images=0.01, texts=0.0, seconds=300.0, arrivals_cv=0.0)
    whole = outcome([["replica"]], rare)
    half = outcome([["replica", "client"]], rare, client={"idle": 0.5})
    transfer_s = Costs.of(costs_object()).transfer.seconds(SIZE.patches)
    waited_s = 0.01 + transfer_s  # on its way, in no queue
    assert half.encode_p99_s - waited_s == pytest.approx(2 * (whole.encode_p99_s - waited_s))


def test_tokens_come_to_their_clients_in_order_and_all_of_them() -> None:
    given: dict[str, Any] = {"gateway": GATEWAY, "client": GATEWAY}
    costs = Costs.of(costs_object(cores=[["decoder", "gateway", "client"]], processors=given))
    simulation = Simulation(costs, replace(LOAD, repeat=0.5), PLAN)
    simulation.run()
    for answer in simulation.answers:
        assert answer.first is not None and answer.last is not None
        least = (answer.arrival.output_tokens - 1) * 0.02
        assert answer.last - answer.first >= 0.9 * least


def test_gateways_are_as_busy_as_requests_make_them() -> None:
    found = outcome([], gateway=GATEWAY, front={"image_s": 0.01})
    answers = Simulation(Costs.of(costs_object()), LOAD, PLAN).answers
    tokens = sum(answer.arrival.output_tokens for answer in answers)
    images = sum(answer.arrival.patches > 0 for answer in answers)
    seconds = 0.01 * len(answers) + (0.004 + 2e-6 * SIZE.patches) * images + 0.004 * tokens
    assert (found.gateway_cores, found.front_cores) == (1, 1)
    assert found.gateway_use == pytest.approx(seconds / LOAD.seconds)
    assert found.front_use == pytest.approx(0.01 * images / LOAD.seconds)
