"""What guessing ahead brings, and what it costs where nothing repeats itself.

    python -m tests.bench.speculation BUNDLE [--checkpoint CHECKPOINT] [--threads N] [--rounds N]

Two decoder processes, one that guesses (`--speculation=auto`) and one that does not, answer the
same calls by turns, one call at a time. Tokens per second from an answer's first token to its
last, by the decoder's clock:

    echo      greedy, after one token 256 times: random weights go on repeating themselves
    cycle     greedy, after two tokens by turns: they wander from cycle to cycle
    random    greedy, after random tokens: nothing comes twice, and nothing is guessed
    letters   random text over eight letters: its n-grams all come again, and what follows is
              guessed wrongly seven times in eight. The worst case
    SKILL     in their place with --checkpoint: held-out questions of the demonstration model,
              greedy. Its steps take a quarter of a millisecond, so its ratio says little of others

`tokens_per_run` would be the ratio if runs of several rows took no longer than those of one; its
ceiling is 1 + draft_tokens, 9. Not measured: several sequences at once, for which nothing is
guessed. The last line of standard output is one JSON object.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from protos.tandem.v1 import decoder_pb2
from tests.bench.demo_questions import Call, questions
from tests.bench.drivers.protocol import random_ids
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.bench.streams import GREEDY, Streams, text_request
from tests.support.decoder_process import DecoderProcess

MODES = ("off", "auto")
CONTEXT, TOKENS = 256, 160
SKILLS = ("describe", "locate", "talk")  # the others answer with a word or two
QUESTIONS, LONGEST_ANSWER = 20, 48
FLAGS = ("--max-sequences=1", "--max-context=2048")
LETTERS = decoder_pb2.SamplingParams(
    temperature=2.0,
    seed=1,
    top_k=8,
    logit_bias=[decoder_pb2.LogitBias(token_id=id_, bias=100.0) for id_ in range(100, 108)],
)


@dataclass(slots=True)
class Found:
    """What one way of decoding made of one kind of text."""

    tokens: int = 0  # without each answer's first
    seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0
    lengths: list[int] = field(default_factory=list)  # of the answers

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds else 0.0


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The gain of guessing ahead.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="the demonstration model's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    kinds: Mapping[str, Sequence[Call]] = {
        "echo": [_call([5000] * CONTEXT, GREEDY)],
        "cycle": [_call([5000, 6000] * (CONTEXT // 2), GREEDY)],
        "random": [_call(random_ids(CONTEXT), GREEDY)],
        "letters": [_call(random_ids(CONTEXT), LETTERS)],
    }
    if arguments.checkpoint is not None:
        kinds = {
            skill: list(questions(arguments.checkpoint, skill, QUESTIONS, LONGEST_ANSWER))
            for skill in SKILLS
        }
    others = warn_unless_quiet()
    found = _measure(arguments.bundle, arguments.threads, kinds, arguments.rounds)
    result = {**surroundings(), "most_other_cores_in_use": others}
    for kind in kinds:
        result |= {f"{kind}_{name}": value for name, value in _row(kind, found).items()}
        cells = " | ".join(str(value) for value in _row(kind, found).values())
        print(f"| {result['date']} | {result['commit']} | {kind} | {cells} |")
    print(json.dumps(result, sort_keys=True))
    return 0


def _call(ids: Sequence[int], sampling: decoder_pb2.SamplingParams) -> Call:
    return [text_request(ids, TOKENS, sampling)]


def _measure(
    bundle: Path, threads: int, kinds: Mapping[str, Sequence[Call]], rounds: int
) -> dict[tuple[str, str], Found]:
    found = {(mode, kind): Found() for mode in MODES for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        streams = {}
        for mode in MODES:
            flags = (f"--threads={threads}", f"--speculation={mode}", *FLAGS)
            log = Path(folder) / f"{mode}.log"
            decoder = stack.enter_context(DecoderProcess(bundle, log, flags))
            streams[mode] = stack.enter_context(Streams(decoder.port))
        for round_ in track(range(1 + rounds), "rounds", console=Console(stderr=True)):
            for kind, calls in kinds.items():
                for mode in MODES:
                    # The first round warms up, and lets guessing learn what runs cost.
                    into = found[mode, kind] if round_ else Found()
                    for call in calls:
                        _answer(streams[mode], call, into)
    return found


def _answer(streams: Streams, call: Call, found: Found) -> None:
    stream = streams.send(call)
    streams.wait(lambda: stream.is_done, [stream])
    assert stream.completion is not None, "it ended without an error"
    found.tokens += len(stream.arrivals) - 1
    found.seconds += stream.completion.timings.decode_ms / 1e3
    found.drafted += stream.completion.drafted_tokens
    found.accepted += stream.completion.accepted_tokens
    found.lengths.append(len(stream.arrivals))


def _row(kind: str, found: dict[tuple[str, str], Found]) -> dict[str, object]:
    off, on = found["off", kind], found["auto", kind]
    return {
        "ratio": round(on.rate / off.rate, 2) if off.rate else None,
        "tokens_per_run": round(sum(on.lengths) / (sum(on.lengths) - on.accepted), 2),
        "tokens_per_s": round(on.rate, 1),
        "tokens_per_s_off": round(off.rate, 1),
        "drafted_per_token": round(on.drafted / sum(on.lengths), 2),
        "accepted_share": round(on.accepted / on.drafted, 2) if on.drafted else 0.0,
        "answer_tokens": sum(on.lengths),
        "lengths_agree": off.lengths == on.lengths,
    }


if __name__ == "__main__":
    sys.exit(main())
