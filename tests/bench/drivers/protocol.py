"""How the benchmark talks to an engine in a process, and an environment, of its own.

One JSON object a line, both ways; standard library only, because every peer's environment
imports this. The driver first says `{"ready": DESCRIPTION}`, then answers each command:

    {"do": "prefill", "tokens": T}             {"seconds": [s]}     a prompt no cache has seen,
                                                                    up to its first new token
    {"do": "hold", "batch": B, "context": C}   {"seconds": []}      B sequences of C tokens, untimed
    {"do": "decode", "tokens": N}              {"seconds": [s, ..]} N steps of all held sequences
    {"do": "drop"}                             {"seconds": []}      forgets the held sequences
    {"do": "write", "tokens": P, "file": F}    {"seconds": []}      towers: features of the image
                                                                    of P patches, as .npy

and `{"error": TEXT}` when it cannot. End of input ends the driver.
"""

import ctypes
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO, runtime_checkable

WARM_STEPS = 2  # untimed steps before timed ones: another engine ran meanwhile
LOWEST_ID, HIGHEST_ID = 1000, 150000  # ordinary tokens of the vocabulary
MOST_HELD_TOKENS = 512  # new tokens a held sequence has room for

_PR_SET_PDEATHSIG = 1
# Looked up here: between fork and exec, beside threads that are gone, the loader may not be used.
_PRCTL = ctypes.CDLL(None).prctl


class Engine(Protocol):
    """One engine with one model loaded, two threads."""

    def describe(self) -> str:
        """Name, version and the settings that matter, one line."""

    def prefill(self, tokens: int) -> float:
        """Seconds from a fresh prompt to its first new token."""

    def hold(self, batch: int, context: int) -> None:
        """Brings sequences to `context` tokens each; they stay until `drop`."""

    def decode(self, tokens: int) -> list[float]:
        """Seconds of each of `tokens` steps; a step gives every held sequence one token."""

    def drop(self) -> None:
        """Forgets the held sequences; does nothing when there are none."""


@runtime_checkable
class Tower(Protocol):
    """What an engine that is a vision tower has besides; its tokens are patches."""

    def write(self, tokens: int, file: str) -> None:
        """Writes the features of the image of `tokens` patches, [levels, N, hidden]."""


def serve(load: Callable[[], Engine]) -> None:
    """Loads the engine and answers commands until the input ends."""
    answers = _claim_stdout()
    try:
        engine = load()
        _write(answers, {"ready": engine.describe()})
    except Exception as error:  # The parent reports it and goes on with the other engines.
        _write(answers, {"error": _text(error)})
        return
    for line in sys.stdin:
        try:
            _write(answers, {"seconds": _perform(engine, json.loads(line))})
        except Exception as error:  # As above.
            _write(answers, {"error": _text(error)})


def end_with_parent() -> None:
    """Has the kernel end this process, halted or not, with the thread that started it."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def random_ids(count: int) -> list[int]:
    """Token ids of a prompt that no cache has seen."""
    return [random.randrange(LOWEST_ID, HIGHEST_ID) for _ in range(count)]


def _perform(engine: Engine, command: Mapping[str, Any]) -> list[float]:
    kind = command["do"]
    if kind == "prefill":
        return [engine.prefill(command["tokens"])]
    if kind == "decode":
        return engine.decode(command["tokens"])
    if kind == "hold":
        engine.drop()
        engine.hold(command["batch"], command["context"])
    elif kind == "drop":
        engine.drop()
    elif kind == "write" and isinstance(engine, Tower):
        engine.write(command["tokens"], command["file"])
    else:
        raise ValueError(
            f"do is {kind!r}, expected prefill, hold, decode, drop, or a tower's write"
        )
    return []


def _claim_stdout() -> TextIO:
    """Keeps the pipe for answers; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _write(answers: TextIO, message: Mapping[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
