"""Replicas and decoders against the formulas of queues that have one."""

import math

import numpy as np
import pytest

from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.clock import Clock
from planner.simulation.encoder import Encoders
from planner.simulation.run import Plan, Simulation
from tests.unit.planner.costs_file import costs_object

PATCHES = 500
SERVICE_S = 1.0
FREE = [{"patches": 1, "seconds": 1e-12}]


def one_by_one() -> Costs:
    """A pass takes one image, and a second."""
    encode = [{"patches": p, "seconds": p / PATCHES} for p in (1, PATCHES)]
    return Costs.of(
        costs_object(
            encode=encode, preprocess=FREE, max_batch_patches=PATCHES, max_queued_patches=10**9
        )
    )


def mean_wait(replicas: int, busy: float, images: int = 12_000) -> float:
    """Of Poisson arrivals at replicas that work so much of their time, seconds."""
    clock = Clock()
    encoders = Encoders(clock, one_by_one(), count=replicas)
    gaps = np.random.default_rng(7).exponential(SERVICE_S / replicas / busy, images)
    waits = list[float]()

    def arrive() -> None:
        came = clock.now
        encoders.submit(PATCHES, lambda: waits.append(clock.now - came - SERVICE_S))

    for moment in np.cumsum(gaps):
        clock.at(float(moment), arrive)
    clock.run()
    assert len(waits) == images
    return float(np.mean(waits))


def waiting_probability(servers: int, busy: float) -> float:
    """Erlang's C formula."""
    offered = servers * busy
    terms = [offered**k / math.factorial(k) for k in range(servers + 1)]
    last = terms[-1] / (1 - busy)
    return last / (sum(terms[:-1]) + last)


@pytest.mark.parametrize("busy", [0.5, 0.7])
def test_one_replica_is_an_m_d_1_queue(busy: float) -> None:
    expected = busy / (2 * (1 - busy)) * SERVICE_S
    assert mean_wait(1, busy) == pytest.approx(expected, rel=0.08)


def test_several_replicas_are_an_m_d_c_queue() -> None:
    # Work goes where it ends first, which is one queue for all; half of M/M/c, and Cosmetatos'
    # correction, is within a percent of M/D/c.
    servers, busy = 4, 0.8
    exponential = waiting_probability(servers, busy) / (servers * (1 - busy))
    corrected = 1 + (1 - busy) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (
        16 * busy * servers
    )
    expected = exponential / 2 * corrected * SERVICE_S
    assert mean_wait(servers, busy) == pytest.approx(expected, rel=0.08)


def test_a_decoder_of_one_slot_is_an_m_d_1_queue() -> None:
    tokens, step_s, busy = 20, 0.05, 0.7
    limits = {**costs_object()["decoder"], "slots": 1, "waiting": 10**6}
    costs = Costs.of(
        costs_object(
            decode=[{"sequences": 1, "context": 16, "seconds": step_s}],
            prefill=[{"tokens": 1, "seconds": step_s}, {"tokens": 64, "seconds": step_s}],
            step_spread=[1.0] * 101,
            overhead_s=0.0,
            decoder=limits,
        )
    )
    load = Load(
        images=0.0, texts=busy / (tokens * step_s), tokens_in=8, tokens_out=tokens, tokens_cv=0.0,
        seconds=4000.0, warm_up_s=100.0,
    )  # fmt: skip
    simulation = Simulation(costs, load, Plan(replicas=0, decoders=1))
    simulation.run()
    # The first step prefills, for as long as it takes to decode one token.
    waits = [answer.ttft_s - step_s for answer in simulation.answers]
    expected = busy / (2 * (1 - busy)) * tokens * step_s
    assert float(np.mean(waits)) == pytest.approx(expected, rel=0.12)


def test_a_small_image_passes_a_huge_one_s_queue() -> None:
    clock = Clock()
    costs = Costs.of(costs_object(max_batch_patches=4096))
    encoders = Encoders(clock, costs, count=1)
    ended = dict[int, float]()
    for patches in (60_000, 256):
        encoders.submit(patches, lambda patches=patches: ended.update({patches: clock.now}))
    clock.run()
    assert ended[256] < ended[60_000] / 20
    assert ImageSize(width=256, height=256).patches == 256
