"""How many replicas and decoders a load needs, and what other ratios of the two would give."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from planner.costs import Costs
from planner.load import Load
from planner.simulation.outcome import Outcome
from planner.simulation.run import Plan, simulate

# Of their time that replicas and decoders may work where the search begins.
_BUSY = 0.8
# Simulations until a plan is called found, or the load too much.
_MOST_TRIES = 24
# Of all nodes, plans of the curve; each is a simulation.
CURVE_POINTS = 9

Told = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The smallest plan that meets the targets, or the last that was tried.

    Attributes:
        outcome: Of it.
        meets: Whether it does.
    """

    outcome: Outcome
    meets: bool


def meets(outcome: Outcome, load: Load) -> bool:
    """Whether 99 of 100 requests and tokens come in time, and none is refused."""
    return (
        outcome.refused == 0
        and outcome.ttft_p99_s <= load.ttft_s
        and outcome.itl_p99_s <= load.itl_s
    )


def first_guess(costs: Costs, load: Load) -> Plan:
    """As many as work most of their time, by sums alone."""
    images_s = _mean(load, lambda patches: costs.encode.seconds(patches)) * load.images
    tokens = load.tokens_in + _mean(load, lambda patches: patches / 4) * load.images / load.rate
    slots = costs.decoder.slots
    within = [n for n in range(1, slots + 1) if costs.steps.decode_s(n) <= load.itl_s / 2]
    batch = max(within, default=1)
    prompt_s = costs.steps.prompt.linear_s * tokens
    answer_s = costs.steps.decode_s(batch) / batch * load.tokens_out
    return Plan(
        replicas=math.ceil(images_s / _BUSY),
        decoders=max(1, math.ceil((prompt_s + answer_s) * load.rate / _BUSY)),
    )


def smallest(
    costs: Costs, load: Load, *, most_nodes: int, told: Told = lambda outcome: None
) -> Found:
    """The smallest plan that meets the load's targets.

    From a guess it goes up on the side that keeps requests waiting until the targets are met, and
    then down on each side as long as they still are.

    Args:
        costs: Of every machine.
        load: What comes, and the targets.
        most_nodes: Of both kinds together.
        told: Hears of every simulation.
    """
    tried = dict[Plan, Outcome]()

    def run(plan: Plan) -> Outcome:
        if plan not in tried:
            tried[plan] = simulate(costs, load, plan)
            told(tried[plan])
        return tried[plan]

    plan = first_guess(costs, load)
    while plan.replicas + plan.decoders <= most_nodes and len(tried) < _MOST_TRIES:
        outcome = run(plan)
        if meets(outcome, load):
            return Found(outcome=_lowered(plan, run, load, tried), meets=True)
        plan = _raised(plan, outcome, load)
    if not tried:
        run(plan)
    return Found(outcome=[*tried.values()][-1], meets=False)


def _raised(plan: Plan, outcome: Outcome, load: Load) -> Plan:
    """More of what keeps requests waiting; by a tenth at least, for large plans."""
    encodes = load.images > 0 and outcome.encode_p99_s > outcome.ttft_p99_s / 2
    slow_tokens = outcome.itl_p99_s > load.itl_s
    replicas = plan.replicas + (max(1, plan.replicas // 10) if encodes else 0)
    more = max(1, plan.decoders // 10) if slow_tokens or not encodes else 0
    return Plan(replicas=replicas, decoders=plan.decoders + more)


def _lowered(
    plan: Plan, run: Callable[[Plan], Outcome], load: Load, tried: dict[Plan, Outcome]
) -> Outcome:
    """The plan with as few as still meet the targets, one side after the other."""
    best = plan
    for side in ("decoders", "replicas"):
        step = max(1, (best.decoders if side == "decoders" else best.replicas) // 10)
        while step and len(tried) < _MOST_TRIES:
            less = _less(best, side, step)
            if less is not None and meets(run(less), load):
                best = less
            else:
                step //= 2
    return run(best)


def _less(plan: Plan, side: str, step: int) -> Plan | None:
    if side == "decoders":
        decoders = plan.decoders - step
        return Plan(replicas=plan.replicas, decoders=decoders) if decoders >= 1 else None
    replicas = plan.replicas - step
    return Plan(replicas=replicas, decoders=plan.decoders) if replicas >= 1 else None


def ratios(costs: Costs, load: Load, nodes: int) -> Iterator[Outcome]:
    """What as many nodes in all give at other ratios of replicas to decoders.

    Args:
        costs: Of every machine.
        load: What comes.
        nodes: At least 2.
    """
    if load.images == 0:
        return
    points = min(CURVE_POINTS, nodes - 1)
    shares = (1 + (nodes - 2) * index / max(1, points - 1) for index in range(points))
    for replicas in sorted({round(share) for share in shares}):
        yield simulate(costs, load, Plan(replicas=replicas, decoders=nodes - replicas))


def _mean(load: Load, of: Callable[[int], float]) -> float:
    total = sum(size.weight for size in load.sizes)
    return sum(size.weight * of(size.patches) for size in load.sizes) / total
