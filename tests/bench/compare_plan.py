"""The simulator behind `tandem plan` against the real services: the same requests, side by side.

    python -m tests.bench.compare_plan [BUNDLE] [--seconds N] [--busy 0.3,0.5,0.7] [--costs FILE]

A stack of one encoder replica and one decoder runs on cores of its own (the replica on the first,
the decoder on the second, one thread each; the gateway and the clients share the first). Costs are
measured as `tandem bench --costs` does. Then requests come at random moments, each at its own
whatever became of the others, at rates that keep the busier tier working the given shares of its
time; the simulator gets the very same requests. TTFT and time between tokens are the clients'.
Goal: p50 and p99 within 20 %. On a quiet machine it takes about 3.5 minutes with the defaults.

Not compared: several replicas or decoders on one host, which would share cores, and speculation,
which is off. The last line of standard output is one JSON object.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.client import ChatClient, Conversation
from deploy.commands import costs as measured
from deploy.commands.bench import PATIENCE, image
from deploy.commands.running import own_stack, stop_signals
from deploy.commands.serve import tier_flags
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.outcome import Outcome, percentile
from planner.simulation.requests import Arrival, arrivals
from planner.simulation.run import Plan, simulate
from protos.machine.processes import descendants
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.bench.machine import warn_unless_quiet
from tests.bench.plan_bundle import plan_bundle

GOAL = 0.2
FLAGS = ["vision.threads=1", "vision.tower=fast", "decoder.threads=1", "decoder.max-sequences=8",
         "decoder.max-context=4096", "decoder.speculation=off"]  # fmt: skip
CORES = {"vision": 0, "decoder": 1, "gateway": 0}
LOAD = Load(
    images=0.5,
    texts=0.5,
    sizes=(ImageSize(width=256, height=256), ImageSize(width=448, height=448)),
    tokens_in=96,
    tokens_out=48,
    warm_up_s=0.0,
)
FIGURES = ("ttft_p50_s", "ttft_p99_s", "itl_p50_s", "itl_p99_s")


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The simulator against real runs.")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=50.0)
    parser.add_argument("--busy", default="0.3,0.5,0.7")
    parser.add_argument("--costs", type=Path, help="where to keep the measured costs")
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    console = Console(stderr=True)
    flags = tier_flags(FLAGS, threads=None)
    patient = {tier: [*given, *flags.get(tier, ())] for tier, given in PATIENCE.items()}
    settings = StackSettings(
        bundle=arguments.bundle or plan_bundle(), ports=ANY_FREE, flags=patient
    )
    with stop_signals(), own_stack(console, settings, quiet=True) as (stack, client):
        pin(stack)
        found = measured.measure(stack, client, patient, told=console.print)
        if arguments.costs is not None:
            arguments.costs.write_text(json.dumps(found, indent=1))
        costs = Costs.of(found)
        rows = [
            compare(client, costs, busy, arguments.seconds)
            for busy in map(float, arguments.busy.split(","))
        ]
    show(rows)
    print(json.dumps({"rows": rows, "most_other_cores_in_use": others}, sort_keys=True))
    return 0


def pin(stack: LocalStack) -> None:
    """Puts each tier on its core, and this process, which asks, on the gateway's."""
    if len(os.sched_getaffinity(0)) < 2:
        print("one core only: the tiers share it, which the simulator does not know")
        return
    for tier, core in CORES.items():
        for pid in (stack.pid(tier), *descendants(stack.pid(tier))):
            _pin(pid, core)
    _pin(os.getpid(), CORES["gateway"])


def _pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def compare(client: ChatClient, costs: Costs, busy: float, seconds: float) -> dict[str, Any]:
    """One rate, for real and simulated."""
    rate = busy / _seconds_of_one(costs)
    load = replace(LOAD, images=rate / 2, texts=rate / 2, seconds=seconds)
    simulated = simulate(costs, load, Plan(replicas=1, decoders=1))
    asked = arrivals(load, max_context=costs.decoder.max_context)
    real = Clients(client).run(asked)
    return {"busy": busy, "rate": round(rate, 3), "requests": len(asked),
            "replica_use": round(simulated.replica_use, 3),
            "decoder_use": round(simulated.decoder_use, 3),
            "real": real, "simulated": _figures(simulated)}  # fmt: skip


def _seconds_of_one(costs: Costs) -> float:
    """What the busier tier spends on a request of the load, on average."""
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
    """One answer: seconds to the first token, and between the others."""

    first_s: float
    gaps: list[float]


class Clients:
    """Asks each request at its moment, in a thread of its own."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._words = measured.Words()
        self._per_word, self._around = self._tokens_of_words()

    def run(self, asked: Sequence[Arrival]) -> dict[str, float]:
        """The figures of all answers.

        Raises:
            RuntimeError: a request failed.
        """
        seen = self.answers(asked)
        firsts = [one.first_s for one in seen]
        gaps = [gap for one in seen for gap in one.gaps]
        values = [percentile(firsts, 0.5), percentile(firsts, 0.99),
                  percentile(gaps, 0.5), percentile(gaps, 0.99)]  # fmt: skip
        return dict(zip(FIGURES, values, strict=True))

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
        moments = list[float]()
        for chunk in self._client.complete(request):
            moments += [time.perf_counter()] * len(chunk.token_ids)
        # From the moment it was due: a late client is the machine's delay, not nobody's.
        gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
        seen.append(Seen(moments[0] - moment, gaps))

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
    table = Table("busy", "requests", "figure", "real", "simulated", "off")
    for row in rows:
        for name in FIGURES:
            real, simulated = row["real"][name], row["simulated"][name]
            off = simulated / real - 1
            mark = "" if abs(off) <= GOAL else " !"
            table.add_row(f"{row['busy']:.0%}", str(row["requests"]), name,
                          f"{real * 1e3:.1f} ms", f"{simulated * 1e3:.1f} ms",
                          f"{off:+.0%}{mark}")  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
