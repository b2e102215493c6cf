"""What each kind of work costs on this machine: measured points for `tandem plan`.

Everything goes through the services' own doors, one kind of work at a time, and is timed where a
client is: what a step costs holds its tokens' way to the client.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console

from deploy.client import ChatClient
from deploy.costs.questions import (
    SETTLING,
    STREAM_TOKENS,
    Timed,
    Words,
    about_an_image,
    ask,
    timed,
    together,
)
from deploy.stack.local import LocalStack
from deploy.stack.usage import Usage, processor_seconds
from deploy.terminal.screen import CommandError
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc

# Sides of images; fewer where a bundle's own limits resize them to the same.
SIDES = ((256, 256), (448, 448), (640, 640), (1024, 768))
PROMPT_WORDS = (16, 64, 160, 320)
STREAMS = (1, 2, 4, 8, 16)
# The first of many streams decodes on while the prompts of the last are prefilled.
MOST_TOKENS = 2048
IDLE_S = 0.5  # without requests, to see what processes take anyway
LONG_WORDS = 400  # of a prompt that shows what context costs
ROUNDS = 3
SPREAD_SHARES = np.linspace(0.0, 1.0, 101)

# Settings that are not asked of the services: their defaults, unless flags say otherwise.
DEFAULTS = {
    ("vision", "max-batch-patches"): 4096,
    ("vision", "max-queued-patches"): 65_536,
    ("decoder", "max-waiting"): 64,
    ("decoder", "prefill-chunk-tokens"): 256,
    ("decoder", "mixed-chunk-tokens"): 256,
}
# What the planner does not model is measured without.
FLAGS = {"decoder": ("--speculation=off",)}

Row = dict[str, float]


def measure(
    stack: LocalStack,
    client: ChatClient,
    flags: Mapping[str, Sequence[str]],
    *,
    told: Callable[[str], None] = lambda doing: None,
) -> dict[str, Any]:
    """All points, in the fields that `tandem plan` reads.

    Args:
        stack: It runs, and has nothing else to do.
        client: Of its gateway.
        flags: It was started with, by tier.
        told: Hears what is measured next.

    Raises:
        ServiceError: a question failed.
    """
    words = Words()
    limits = _limits(stack, flags)
    told("prompts")
    prefill, overhead_s = _prompts(client, words, limits["max_context"])
    told("images")
    images = _images(client, words, overhead_s)
    told("steps")
    decode, spread = _steps(client, words, limits)
    told("processors")
    processors = _processors(stack, client, words, min(4, limits["slots"]))
    return {
        **images,
        "prefill": prefill,
        "overhead_s": overhead_s,
        "decode": decode,
        "step_spread": spread,
        "processors": processors,
        "decoder": limits,
        "max_batch_patches": _setting(flags, "vision", "max-batch-patches"),
        "max_queued_patches": _setting(flags, "vision", "max-queued-patches"),
        "startup_s": {tier: event.seconds for tier, event in stack.ready.items()},
    }


def write(
    path: Path,
    console: Console,
    flags: Mapping[str, Sequence[str]],
    stack: LocalStack,
    client: ChatClient,
) -> None:
    """Measures and writes the file; see `measure`.

    Raises:
        CommandError: the file cannot be written.
    """
    with console.status("measuring costs") as status:
        costs = measure(
            stack, client, flags, told=lambda doing: status.update(f"measuring costs: {doing}")
        )
    try:
        path.write_text(json.dumps(costs, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


# -- What is measured ------------------------------------------------------------------------


def _prompts(client: ChatClient, words: Words, max_context: int) -> tuple[list[Row], float]:
    """Prefill by prompt tokens, and what a first token takes beside it."""
    rows, beside = list[Row](), list[float]()
    ask(client, words.text(PROMPT_WORDS[0]), 2)  # warms up
    for _, count in itertools.product(range(ROUNDS), PROMPT_WORDS):
        # Words are digits, of which a tokenizer makes a few tokens each.
        if count * 8 > max_context:
            continue
        found = ask(client, words.text(count), 2)
        seconds = found.spent.prefill_ms / 1e3
        rows.append({"tokens": found.prompt_tokens, "seconds": seconds})
        beside.append(found.first_s - seconds)
    return _medians(rows, "tokens"), max(0.0, statistics.median(beside))


def _images(client: ChatClient, words: Words, overhead_s: float) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {"preprocess": [], "encode": [], "transfer": []}
    for round_number, side in itertools.product(range(ROUNDS + 1), SIDES):
        conversation, patches = about_an_image(client, words, side)
        found = timed(client, conversation, 2)
        if round_number == 0:  # warms up
            continue
        spent = found.spent
        known = (spent.preprocess_ms + spent.encode_ms + spent.prefill_ms) / 1e3
        for kind, seconds in (
            ("preprocess", spent.preprocess_ms / 1e3),
            ("encode", spent.encode_ms / 1e3),
            ("transfer", found.first_s - overhead_s - known),
        ):
            rows[kind].append({"patches": patches, "seconds": max(1e-6, seconds)})
    return {kind: _medians(found, "patches") for kind, found in rows.items()}


def _steps(
    client: ChatClient, words: Words, limits: Mapping[str, int]
) -> tuple[list[Row], list[float]]:
    """Seconds of a step by what decodes, and how far steps lie from their median."""
    most = limits["max_context"] // 8
    shapes = [(count, PROMPT_WORDS[0]) for count in STREAMS if count <= limits["slots"]]
    if LONG_WORDS < most:
        shapes.append((min(2, limits["slots"]), LONG_WORDS))
    gaps: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    contexts: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    for _, shape in itertools.product(range(ROUNDS), shapes):
        count, length = shape
        texts = [words.text(min(length, most)) for _ in range(count)]
        found = together(client, texts, min(MOST_TOKENS, limits["max_context"] // 2))
        gaps[shape] += _gaps(found)
        contexts[shape] += [one.prompt_tokens + STREAM_TOKENS / 2 for one in found]
    middles = {shape: statistics.median(gaps[shape]) for shape in shapes}
    rows = [
        {
            "sequences": shape[0],
            "context": round(statistics.mean(contexts[shape])),
            "seconds": middles[shape],
        }
        for shape in shapes
    ]
    ratios = [gap / middles[shape] for shape in shapes for gap in gaps[shape]]
    spread = np.quantile(ratios, SPREAD_SHARES).clip(0.05)
    return rows, [round(float(one), 4) for one in spread]


def _processors(
    stack: LocalStack, client: ChatClient, words: Words, streams: int
) -> dict[str, dict[str, float]]:
    """Processor seconds of what is around the models, by process."""
    usage = Usage(lambda: processor_seconds(stack))
    for _ in range(ROUNDS):
        with usage.during():
            time.sleep(IDLE_S)
        with usage.during(requests=streams, tokens=2 * streams):
            for _ in range(streams):
                ask(client, words.text(PROMPT_WORDS[0]), 2)
        with usage.during(requests=streams, tokens=STREAM_TOKENS * streams):
            with ThreadPoolExecutor(streams) as pool:
                texts = [words.text(PROMPT_WORDS[0]) for _ in range(streams)]
                list(pool.map(lambda text: ask(client, text, STREAM_TOKENS), texts))
        for side in SIDES:
            conversation, patches = about_an_image(client, words, side)
            with usage.during(requests=1, images=1, patches=patches, tokens=2):
                timed(client, conversation, 2)
    return usage.costs()


def _gaps(streams: Sequence[Timed]) -> Iterator[float]:
    """Times between tokens while all of some answers decode."""
    since = max(one.arrivals[min(SETTLING, len(one.arrivals) - 1)] for one in streams)
    until = min(one.arrivals[-1] for one in streams)
    for one in streams:
        for before, after in itertools.pairwise(one.arrivals):
            if since <= before and after <= until and after > before:
                yield after - before


def _medians(rows: Sequence[Row], name: str) -> list[Row]:
    """One row for each size, of the median of its seconds."""
    seconds: dict[float, list[float]] = {}
    for row in rows:
        seconds.setdefault(row[name], []).append(row["seconds"])
    return [{name: size, "seconds": statistics.median(seconds[size])} for size in sorted(seconds)]


def _limits(stack: LocalStack, flags: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """What the decoder holds, as it says itself."""
    with grpc.insecure_channel(stack.addresses["decoder"]) as channel:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        load = stub.GetLoad(decoder_pb2.GetLoadRequest())
        info = stub.GetModelInfo(decoder_pb2.GetDecoderModelInfoRequest())
    return {
        "slots": load.slot_count,
        "kv_tokens": load.kv_token_capacity,
        "max_context": info.max_context,
        "waiting": _setting(flags, "decoder", "max-waiting"),
        "prefill_chunk": _setting(flags, "decoder", "prefill-chunk-tokens"),
        "mixed_chunk": _setting(flags, "decoder", "mixed-chunk-tokens"),
    }


def _setting(flags: Mapping[str, Sequence[str]], tier: str, name: str) -> int:
    """A setting by the flags a tier was started with, the last of a name counts."""
    value = DEFAULTS[tier, name]
    for flag in flags.get(tier, ()):
        given, equals, text = flag.removeprefix("--").partition("=")
        if equals and given == name:
            value = int(text)
    return value
