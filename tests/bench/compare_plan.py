"""The simulator behind `tandem plan` against the real services: the same requests, side by side.

    python -m tests.bench.compare_plan [BUNDLE] [--seconds N] [--repeats N] [--busy 0.4,0.6]
                                       [--again] [--costs FILE]

A stack of one encoder replica and one decoder, one thread each, on two cores. The decoder has the
second to itself. All else is on the first: the replica, the vision tier's front and its Ray, the
gateway, and the clients, which are this process. The simulator is told so, and how much of a
processor each takes: costs are measured first, as `tandem bench --costs` does, and how much longer
a step takes while the tower computes on the other core. Then requests come at random moments, each
at its own whatever became of the others, at rates at which the busier tier should work the given
shares of its time; the simulator gets the very same requests. TTFT is from the moment a request was
due to its first token at the client, and the time between tokens is the client's too. Each rate is
run once a repeat, other requests each time; "off" compares the means of all repeats, beside the
least and the most of one. With --again the same requests come twice: "again" is how far the second
real run is off the first, which nothing that is simulated can undercut, and "real" is their mean.
Goal: p50 and p99 within 20 %. The defaults take about 11 minutes, twice that with --again; beside
other work the figures are worth nothing.

Not compared: several replicas or decoders on one host, and speculation, which is off. The last
line of standard output is one JSON object.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table

from deploy.client import ChatClient, Conversation
from deploy.commands.bench import PATIENCE, image
from deploy.commands.running import own_stack, stop_signals
from deploy.commands.serve import tier_flags
from deploy.costs import measurement, questions
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.outcome import Outcome, percentile
from planner.simulation.requests import Arrival, arrivals
from planner.simulation.run import Plan, simulate
from protos.machine.processes import descendants
from protos.tandem.v1 import decoder_pb2, gateway_pb2, vision_pb2, vision_pb2_grpc
from tests.bench.machine import warn_unless_quiet
from tests.bench.plan_bundle import plan_bundle

GOAL = 0.2
# Answers beyond a repeat's 99th percentile; with none it is just the slowest answer.
MEANT = 1
FLAGS = ["vision.threads=1", "vision.tower=fast", "decoder.threads=1", "decoder.max-sequences=8",
         "decoder.max-context=4096", "decoder.speculation=off"]  # fmt: skip
CORES = {"vision": 0, "decoder": 1, "gateway": 0}
SHARED = [["replica", "front", "gateway", "client"], ["decoder"]]  # the same for the simulator
LOAD = Load(
    images=0.5,
    texts=0.5,
    sizes=(ImageSize(width=256, height=256), ImageSize(width=448, height=448)),
    tokens_in=96,
    tokens_out=48,
    warm_up_s=0.0,
)
FIGURES = ("ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s")
# Of the load whose rate is sought: long, for chance to even out.
SOUGHT_S = 400.0
HALVINGS = 12
# Of answers that decode together, alone and beside passes in turn.
BESIDE = {"rounds": 5, "streams": 4, "tokens": 64, "side": 1024}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The simulator against real runs.")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", default="0.4,0.6")
    parser.add_argument("--again", action="store_true", help="the same requests twice")
    parser.add_argument("--costs", type=Path, help="where to keep the measured costs")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < len(SHARED):
        sys.stderr.write("one core only: the tiers would share it\n")
        return 1
    others = warn_unless_quiet()
    console = Console(stderr=True)
    flags = tier_flags(FLAGS, threads=None)
    patient = {tier: [*given, *flags.get(tier, ())] for tier, given in PATIENCE.items()}
    settings = StackSettings(
        bundle=arguments.bundle or plan_bundle(), ports=ANY_FREE, flags=patient
    )
    with stop_signals(), own_stack(console, settings, quiet=True) as (stack, client):
        pin(stack)
        found = {**measurement.measure(stack, client, patient, told=console.print), "cores": SHARED,
                 "step_beside_pass": step_beside_pass(stack, client)}  # fmt: skip
        if arguments.costs is not None:
            arguments.costs.write_text(json.dumps(found, indent=1))
        costs = Costs.of(found)
        clients = Clients(client)
        busy = [float(share) for share in arguments.busy.split(",")]
        rates = {share: rate_of(costs, share) for share in busy}
        times = 2 if arguments.again else 1
        runs = [
            compare(clients, costs, share, load_of(rates[share], arguments.seconds, seed), times)
            for seed, share in itertools.product(range(arguments.repeats), busy)
        ]
        astray = strays(stack)
    rows = [row([run for run in runs if run["busy"] == share]) for share in busy]
    show(rows)
    if astray:
        print(f"{astray} threads were not on their core")
    print(json.dumps({"rows": rows, "runs": runs, "processors": found["processors"],
                      "step_beside_pass": found["step_beside_pass"],
                      "threads_astray": astray, "most_other_cores_in_use": others},
                     sort_keys=True))  # fmt: skip
    return 0


def pin(stack: LocalStack) -> None:
    """Puts each tier on its core, and this process, which asks, on the gateway's."""
    for pid, core in _places(stack).items():
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def strays(stack: LocalStack) -> int:
    """Threads that are not on their core: none, for new ones begin where their parents are."""
    return sum(
        os.sched_getaffinity(int(task.name)) != {core}
        for pid, core in _places(stack).items()
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def _places(stack: LocalStack) -> dict[int, int]:
    """The core of every process."""
    found = {os.getpid(): CORES["gateway"]}
    for tier, core in CORES.items():
        found |= dict.fromkeys((stack.pid(tier), *descendants(stack.pid(tier))), core)
    return found


def load_of(rate: float, seconds: float, seed: int) -> Load:
    """So many requests a second, half of them about an image."""
    return replace(LOAD, images=rate / 2, texts=rate / 2, seconds=seconds, seed=seed)


def rate_of(costs: Costs, busy: float) -> float:
    """Requests a second at which the busier tier is simulated to work that share of its time."""
    low, high = 0.0, 2 * busy / _seconds_of_one(costs)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = simulate(costs, load_of(middle, SOUGHT_S, 0), Plan(replicas=1, decoders=1))
        if max(found.replica_use, found.decoder_use) < busy:
            low = middle
        else:
            high = middle
    return high


def compare(
    clients: "Clients", costs: Costs, busy: float, load: Load, times: int
) -> dict[str, Any]:
    """One rate and one repeat, for real, as often as is said, and simulated."""
    simulated = simulate(costs, load, Plan(replicas=1, decoders=1))
    asked = arrivals(load, max_context=costs.decoder.max_context)
    seen = [clients.answers(asked) for _ in range(times)]
    real = [_real(one) for one in seen]
    first_core = simulated.replica_use + _around(costs, asked, load.seconds)
    return {"busy": busy, "seed": load.seed, "rate": round(load.images + load.texts, 3),
            "requests": len(asked),
            "replica_use": round(simulated.replica_use, 3),
            "decoder_use": round(simulated.decoder_use, 3),
            "first_core_use": round(first_core, 3),
            "late_p99_s": round(percentile([one.late_s for one in seen[0]], 0.99), 4),
            "real": {name: fmean(one[name] for one in real) for name in FIGURES},
            "each": real, "simulated": _figures(simulated)}  # fmt: skip


def step_beside_pass(stack: LocalStack, client: ChatClient) -> float:
    """How many times as long a step takes while the tower computes on the other core.

    By the decoder's own clock, so that what the first core's other processes do is not in it.
    """
    words = questions.Words()
    alone, beside = list[float](), list[float]()
    _step_s(client, words)  # warms up
    for _ in range(BESIDE["rounds"]):
        alone.append(_step_s(client, words))
        with _passes(stack.addresses["vision"], words):
            beside.append(_step_s(client, words))
    return statistics.median(beside) / statistics.median(alone)


def _step_s(client: ChatClient, words: questions.Words) -> float:
    """Seconds of a step of some sequences, none of them about an image."""
    count, tokens = BESIDE["streams"], BESIDE["tokens"]

    def ask(text: str) -> float:
        found = questions.ask(client, text, tokens)
        return found.spent.decode_ms / 1e3 / (tokens - 1)

    with ThreadPoolExecutor(count) as pool:
        return statistics.median(pool.map(ask, [words.text(16) for _ in range(count)]))


@contextmanager
def _passes(vision: str, words: questions.Words) -> Iterator[None]:
    """The tower computes one image after the other meanwhile; nobody wants their features."""
    over, running = threading.Event(), threading.Event()

    def encode() -> None:
        with grpc.insecure_channel(vision) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)
            while not over.is_set():
                file = image(BESIDE["side"], BESIDE["side"], words.number())
                for _ in stub.Encode(vision_pb2.EncodeRequest(image=file)):
                    running.set()

    thread = threading.Thread(target=encode)
    thread.start()
    running.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _around(costs: Costs, asked: Sequence[Arrival], seconds: float) -> float:
    """Share of the first core that is not passes': processes around the models, and files."""
    of = costs.processors.values()
    took = sum(
        one.seconds(patches=arrival.patches, tokens=arrival.output_tokens)
        for one in of
        for arrival in asked
    )
    took += sum(costs.preprocess.seconds(one.patches) for one in asked if one.patches)
    return took / seconds + sum(one.idle for one in of)


def _real(seen: Sequence["Seen"]) -> dict[str, float]:
    firsts = [one.first_s for one in seen]
    gaps = [gap for one in seen for gap in one.gaps]
    values = [percentile(some, share) for some in (firsts, gaps) for share in (0.5, 0.99)]
    return dict(zip(FIGURES, values, strict=True))


def row(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All repeats of one rate: means, how far the simulator is off, and the same of each."""
    made: dict[str, Any] = {
        "busy": runs[0]["busy"],
        "requests": [run["requests"] for run in runs],
        "first_core_use": fmean(run["first_core_use"] for run in runs),
    }
    for name in FIGURES:
        real, simulated = ([run[kind][name] for run in runs] for kind in ("real", "simulated"))
        each = [one / other - 1 for one, other in zip(simulated, real, strict=True)]
        again = [second[name] / first[name] - 1 for first, *rest in _each(runs) for second in rest]
        made[name] = {"real": fmean(real), "simulated": fmean(simulated),
                      "off": fmean(simulated) / fmean(real) - 1,
                      "least": min(each), "most": max(each), "again": again}  # fmt: skip
    return made


def _each(runs: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, float]]]:
    for run in runs:
        yield run["each"]


def _seconds_of_one(costs: Costs) -> float:
    """What the busier tier spends on a request of the load at least: many decode together."""
    patches = [size.patches for size in LOAD.sizes]
    encode = sum(costs.encode.seconds(one) for one in patches) / len(patches) / 2
    tokens = LOAD.tokens_in + sum(patches) / len(patches) / 8
    some = min(4, costs.decoder.slots)
    answer = LOAD.tokens_out * costs.steps.decode_s(some) / some
    return max(encode, tokens * costs.steps.prompt.linear_s + answer)


def _figures(outcome: Outcome) -> dict[str, float]:
    return {name: getattr(outcome, name) for name in FIGURES}


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: seconds to the first token, between the others, and how late it was asked."""

    first_s: float
    gaps: list[float]
    late_s: float


class Clients:
    """Asks each request at its moment, in a thread of its own."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._words = questions.Words()
        self._per_word, self._around = self._tokens_of_words()

    def answers(self, asked: Sequence[Arrival]) -> list[Seen]:
        """All answers, in no order.

        Raises:
            RuntimeError: a request failed.
        """
        requests = [self._request(arrival) for arrival in asked]
        seen: list[Seen] = []
        began = time.perf_counter() + (0.5 if len(asked) > 1 else 0.0)
        threads = [
            threading.Thread(
                target=self._ask, args=(request, began + arrival.moment, seen), daemon=True
            )
            for request, arrival in zip(requests, asked, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(seen) != len(asked):
            raise RuntimeError(f"{len(asked) - len(seen)} of {len(asked)} requests failed")
        return seen

    def _ask(self, request: gateway_pb2.ChatRequest, moment: float, seen: list[Seen]) -> None:
        time.sleep(max(0.0, moment - time.perf_counter()))
        late_s = time.perf_counter() - moment
        moments = list[float]()
        for chunk in self._client.complete(request):
            moments += [time.perf_counter()] * len(chunk.token_ids)
        if len(moments) != request.stop_conditions.max_tokens:
            return  # which counts as failed
        # From the moment it was due: a late client is the machine's delay, not nobody's.
        gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
        seen.append(Seen(moments[0] - moment, gaps, late_s))

    def _request(self, arrival: Arrival) -> gateway_pb2.ChatRequest:
        words = max(1, round((arrival.text_tokens - self._around) / self._per_word))
        side = round(arrival.image_tokens**0.5) * 32
        images = [image(side, side, self._words.number())] if arrival.image_tokens else []
        conversation = Conversation()
        conversation.ask(self._words.text(words), images)
        return gateway_pb2.ChatRequest(
            messages=conversation.messages,
            sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
            stop_conditions=decoder_pb2.StopConditions(
                max_tokens=arrival.output_tokens, ignore_eos=True
            ),
        )

    def _tokens_of_words(self) -> tuple[float, float]:
        """Tokens of a word, and of the template around."""
        counts = []
        for words in (10, 110):
            conversation = Conversation()
            conversation.ask(self._words.text(words))
            request = gateway_pb2.PrepareRequest(messages=conversation.messages)
            counts.append(len(self._client.prepare(request).input_ids))
        each = (counts[1] - counts[0]) / 100
        return each, counts[0] - 10 * each


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints both beside each other, with how far the simulator is off."""
    table = Table("busy", "figure", "of", "real", "simulated", "off", "least", "most",
                  "again")  # fmt: skip
    for one in rows:
        for name in FIGURES:
            figure = one[name]
            mark = "" if abs(figure["off"]) <= GOAL else " !"
            of = f"{sum(one['requests'])} requests" if name.startswith("ttft") else "their tokens"
            table.add_row(f"{one['busy']:.0%}", name, of,
                          f"{figure['real'] * 1e3:.1f} ms", f"{figure['simulated'] * 1e3:.1f} ms",
                          f"{figure['off']:+.0%}{mark}",
                          f"{figure['least']:+.0%}", f"{figure['most']:+.0%}",
                          " ".join(f"{again:+.0%}" for again in figure["again"]))  # fmt: skip
    console = Console(width=100)
    console.print(table)
    fewest = min(count for one in rows for count in one["requests"])
    slower = fewest - math.ceil(0.99 * fewest)
    console.print(
        f"a repeat's TTFT p99 has {slower} slower answers beyond it: "
        + ("a figure" if slower >= MEANT else f"an anecdote, below {MEANT}; ask for more --seconds")
    )


if __name__ == "__main__":
    sys.exit(main())
