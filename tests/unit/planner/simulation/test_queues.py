"""Replicas and decoders against the formulas of queues that have one."""

import heapq
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


def moments(replicas: int, busy: float, images: int) -> list[float]:
    """Poisson arrivals that keep replicas working so much of their time."""
    gaps = np.random.default_rng(7).exponential(SERVICE_S / replicas / busy, images)
    return [float(moment) for moment in np.cumsum(gaps)]


def waits(replicas: int, arrivals: list[float]) -> list[float]:
    """Of images that come at these moments, in order of their ends, seconds."""
    clock = Clock()
    encoders = Encoders(clock, one_by_one(), count=replicas)
    found = list[float]()

    def arrive() -> None:
        came = clock.now
        encoders.submit(PATCHES, lambda: found.append(clock.now - came - SERVICE_S), fail)

    for moment in arrivals:
        clock.at(moment, arrive)
    clock.run()
    return found


def fail() -> None:
    raise AssertionError("a queue was full")


def waits_in_one_queue(servers: int, arrivals: list[float]) -> list[float]:
    """Of one queue before all servers: who waits longest goes to who is free first."""
    free = [0.0] * servers
    found = []
    for moment in arrivals:
        began = max(moment, free[0])
        heapq.heapreplace(free, began + SERVICE_S)
        found.append(began - moment)
    return found


def waiting_probability(servers: int, busy: float) -> float:
    """Erlang's C formula."""
    offered = servers * busy
    terms = [offered**k / math.factorial(k) for k in range(servers + 1)]
    last = terms[-1] / (1 - busy)
    return last / (sum(terms[:-1]) + last)


@pytest.mark.parametrize("busy", [0.5, 0.7])
def test_one_replica_is_an_m_d_1_queue(busy: float) -> None:
    expected = busy / (2 * (1 - busy)) * SERVICE_S
    assert np.mean(waits(1, moments(1, busy, 5_000))) == pytest.approx(expected, rel=0.1)


def test_several_replicas_are_one_queue_for_all() -> None:
    # Each image goes where it ends first, so that nobody waits while a replica has nothing to do.
    arrivals = moments(4, 0.8, 4_000)
    found = waits(4, arrivals)
    assert found == pytest.approx(waits_in_one_queue(4, arrivals), abs=1e-6)
    half_of_exponential = waiting_probability(4, 0.8) / (4 * 0.2) / 2
    assert np.mean(found) == pytest.approx(half_of_exponential, rel=0.25)


def test_a_decoder_of_one_slot_is_one_queue() -> None:
    tokens, step_s, busy = 20, SERVICE_S / 20, 0.7
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
        images=0.0, texts=busy / SERVICE_S, tokens_in=8, tokens_out=tokens, tokens_cv=0.0,
        seconds=400.0, warm_up_s=0.0,
    )  # fmt: skip
    simulation = Simulation(costs, load, Plan(replicas=0, decoders=1))
    simulation.run()
    # The first step prefills, for as long as it takes to decode one token.
    found = [answer.ttft_s - step_s for answer in simulation.answers]
    arrivals = [answer.arrival.moment for answer in simulation.answers]
    assert found == pytest.approx(waits_in_one_queue(1, arrivals), abs=1e-6)


def test_a_small_image_passes_a_huge_one_s_queue() -> None:
    clock = Clock()
    costs = Costs.of(costs_object(max_batch_patches=4096))
    encoders = Encoders(clock, costs, count=1)
    ended = dict[int, float]()

    def submit(patches: int) -> None:
        encoders.submit(patches, lambda: ended.update({patches: clock.now}), fail)

    submit(60_000)
    submit(256)
    clock.run()
    assert ended[256] < ended[60_000] / 20
    assert ImageSize(width=256, height=256).patches == 256
