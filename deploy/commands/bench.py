"""`tandem bench`: what one image question costs on this machine, and where the time goes."""

import io
import json
import secrets
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from deploy.client import ChatClient, Conversation
from deploy.commands.running import own_stack, stop_signals
from deploy.commands.server import NO_FILES, ClientFiles, connected
from deploy.stack.local import LocalStack, StackSettings, check_bundle
from deploy.stack.ports import ANY_FREE
from deploy.terminal.answer import Answer
from deploy.terminal.screen import describe_bundle
from protos.machine.processes import descendants
from protos.tandem.v1 import decoder_pb2, gateway_pb2

MIB = 1024**2
QUESTION = "Describe the image in detail."
# A slow machine shall be measured, not cut off.
PATIENCE = {
    "vision": ("--encode-timeout-s=1800",),
    "gateway": ("--encode-deadline-s=1800", "--request-deadline-s=3600", "--stream-idle-s=1800"),
    "decoder": ("--features-timeout-s=1800",),
}
STAGES = ("prepare", "preprocess", "encode", "transfer", "prefill", "first_token", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: one image and one question at a time, greedily, past end-of-sequence."""

    width: int = 1024
    height: int = 768
    tokens: int = 64
    runs: int = 3
    warm_ups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of a service and the processes it started, MiB; PSS shares common pages out."""

    rss_mib: float
    pss_mib: float
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Medians over the runs; times in milliseconds unless the name says seconds.

    Start-up and memory are known of a stack of one's own only, by tier; {} otherwise.
    """

    load: Load
    prompt_tokens: int
    completion_tokens: int
    stages_ms: Mapping[str, float]
    tokens_per_second: float
    startup_s: Mapping[str, float] = field(default_factory=dict)
    memory_ready: Mapping[str, Memory] = field(default_factory=dict)
    memory_after: Mapping[str, Memory] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def run(
    console: Console,
    bundle: Path,
    load: Load,
    *,
    flags: Mapping[str, Sequence[str]],
    also: Callable[[LocalStack, ChatClient], None] = lambda stack, client: None,
) -> Report:
    """Starts a stack for `bundle`, asks, and reports; `also` measures more of the same stack.

    Raises:
        LaunchError: the stack did not start.
        ServiceError: a question failed.
    """
    patient = {tier: (*given, *flags.get(tier, ())) for tier, given in PATIENCE.items()}
    settings = StackSettings(bundle=bundle, ports=ANY_FREE, flags=patient)
    with stop_signals():
        console.print(describe_bundle(check_bundle(bundle)), highlight=False, soft_wrap=True)
        with own_stack(console, settings) as (stack, client):
            before = memory(stack)
            measured = _measure(client, load, first_seed=0)
            report = replace(
                measured,
                startup_s={tier: event.seconds for tier, event in stack.ready.items()},
                memory_ready=before,
                memory_after=memory(stack),
            )
            also(stack, client)
            return report


def run_against(
    server: str, load: Load, *, api_key: str | None, files: ClientFiles = NO_FILES
) -> Report:
    """Asks a server that runs already, and reports.

    Raises:
        CommandError: no server answers at `server`.
        ServiceError: a question failed.
    """
    otherwise = "start one with `tandem serve BUNDLE`, or measure one with `tandem bench BUNDLE`"
    connecting = connected(server, api_key=api_key, otherwise=otherwise, files=files)
    with stop_signals(), connecting as client:
        # An earlier run's images may still be in the server's caches.
        return _measure(client, load, first_seed=secrets.randbits(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    answer: Answer
    timings: gateway_pb2.ChatTimings


def _ask(client: ChatClient, load: Load, seed: int) -> _Run:
    """One question about an image no cache has seen."""
    conversation = Conversation()
    conversation.ask(QUESTION, [image(load.width, load.height, seed)])
    request = gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=load.tokens, ignore_eos=True),
    )
    chunks = list(client.complete(request))
    return _Run(answer=Answer.of(chunks), timings=chunks[-1].completion.timings)


def image(width: int, height: int, seed: int) -> bytes:
    """A PNG of smooth colours, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def _measure(client: ChatClient, load: Load, *, first_seed: int) -> Report:
    asked = range(first_seed, first_seed + load.warm_ups + load.runs)
    runs = [_ask(client, load, seed) for seed in asked][load.warm_ups :]
    return Report(
        load=load,
        prompt_tokens=runs[-1].answer.prompt_tokens,
        completion_tokens=runs[-1].answer.completion_tokens,
        stages_ms={
            stage: statistics.median(getattr(run.timings, f"{stage}_ms") for run in runs)
            for stage in STAGES
        },
        tokens_per_second=statistics.median(run.answer.tokens_per_second or 0.0 for run in runs),
    )


def memory(stack: LocalStack) -> Mapping[str, Memory]:
    """Memory of each service together with the processes below it."""
    found = {}
    for tier in stack.ready:
        pid = stack.pid(tier)
        rollups = [_rollup(member) for member in (pid, *descendants(pid))]
        found[tier] = Memory(
            rss_mib=round(sum(rollup.get("Rss", 0) for rollup in rollups) / MIB, 1),
            pss_mib=round(sum(rollup.get("Pss", 0) for rollup in rollups) / MIB, 1),
            processes=len(rollups),
        )
    return found


def _rollup(pid: int) -> Mapping[str, int]:
    """Fields of a process's memory in bytes; {} for one that has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def show(console: Console, report: Report) -> None:
    """Prints the figures as tables that fit a terminal of 80 columns."""
    console.print(_times(report))
    if report.startup_s:
        console.print(_tiers(report))


def _times(report: Report) -> Table:
    load = report.load
    times = Table(
        "stage",
        title=f"{load.width}x{load.height} image, {report.prompt_tokens} prompt tokens,"
        f" {report.completion_tokens} new, median of {load.runs}",
        title_justify="left",
    )
    times.add_column("time", justify="right")
    for stage, milliseconds in report.stages_ms.items():
        times.add_row(stage.replace("_", " "), f"{milliseconds:,.0f} ms")
    times.add_row("decode speed", f"{report.tokens_per_second:.1f} tok/s")
    return times


def _tiers(report: Report) -> Table:
    tiers = Table("")
    for tier in report.startup_s:
        tiers.add_column(tier, justify="right")
    tiers.add_row("start-up", *(f"{seconds:.1f} s" for seconds in report.startup_s.values()))
    for moment, memories in (("ready", report.memory_ready), ("after", report.memory_after)):
        measured = [memories[tier] for tier in report.startup_s]
        tiers.add_row(f"RSS {moment}", *(f"{memory.rss_mib:,.0f} MiB" for memory in measured))
        tiers.add_row(f"PSS {moment}", *(f"{memory.pss_mib:,.0f} MiB" for memory in measured))
    counts = (report.memory_after[tier].processes for tier in report.startup_s)
    tiers.add_row("processes", *map(str, counts))
    return tiers
