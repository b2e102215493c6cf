"""What the scripts of Python clients share; the standard library alone.

A script runs in its client's own environment, where nothing of this project is installed. What it
is given is in `TANDEM_CLIENT_...` variables; what it prints is one line per check, and its exit
status says whether all of them held.
"""

import base64
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

URL = os.environ["TANDEM_CLIENT_URL"]  # with /v1
ORIGIN = URL.removesuffix("/v1")
KEY = os.environ["TANDEM_CLIENT_KEY"]
MODEL = os.environ["TANDEM_CLIENT_MODEL"]
VISION = os.environ["TANDEM_CLIENT_VISION"]  # the vision tier, host:port
WORK = Path(os.environ["TANDEM_CLIENT_WORK"])  # an empty folder
TOKENIZER = os.environ["TANDEM_CLIENT_TOKENIZER"]  # a checkpoint's folder
IMAGE = Path(os.environ["TANDEM_CLIENT_IMAGE"])  # a PNG that shows one shape of one colour

SUM, SUM_ANSWER = "What is 2 plus 3?", "5"
COLOR, COLOR_ANSWER = "What color is the circle?", "red"
NAMING, NAME = "What is in the picture?", "red circle"
NAMES = ("red circle", "blue circle", "red square", "blue square")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": list(NAMES)}},
    "required": ["label"],
    "additionalProperties": False,
}
LONG = "word " * 40_000  # more tokens than any window of the demonstration model


def image_url() -> str:
    """The image as a data: URL."""
    return "data:image/png;base64," + base64.b64encode(IMAGE.read_bytes()).decode()


def about_image(question: str) -> list[dict[str, Any]]:
    """Content of a user's turn in OpenAI's form: the image, then a question about it."""
    return [
        {"type": "image_url", "image_url": {"url": image_url()}},
        {"type": "text", "text": question},
    ]


class Checks:
    """Runs checks one after the other and prints a line for each."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, name: str, check: Callable[[], object]) -> None:
        """Runs a check; anything it raises is its failure.

        Args:
            name: What is checked.
            check: Raises unless it holds; what it returns is told beside the name.
        """
        try:
            told = check()
        except Exception as error:  # Each client raises errors of its own.
            self._failed = True
            traceback.print_exc()
            print(f"FAILED {name}: {_line(error)}", flush=True)
        else:
            print(f"ok {name}" + ("" if told is None else f": {_line(told)}"), flush=True)

    def end(self) -> None:
        """Leaves the process with the status that the checks have earned."""
        sys.exit(1 if self._failed else 0)


def run(program: str, *arguments: str, timeout_s: float = 500.0) -> str:
    """Runs a program of the script's environment and returns what it printed.

    Raises:
        AssertionError: it failed; the text is its last words.
    """
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=WORK,
        timeout=timeout_s,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-1500:]
    return done.stdout


def same(actual: object, expected: object) -> str:
    """Raises AssertionError unless both are equal; returns what is told."""
    assert actual == expected, f"expected {expected!r}, got {actual!r}"
    return repr(actual)


class Refusal:
    """What a block raised."""

    error: BaseException


@contextmanager
def refused(kind: type[BaseException]) -> Iterator[Refusal]:
    """Raises AssertionError unless the block raises `kind`; tells what it raised."""
    told = Refusal()
    try:
        yield told
    except kind as error:
        told.error = error
    else:
        raise AssertionError(f"expected {kind.__name__}, nothing was raised")


def _line(told: object) -> str:
    kind = f"{type(told).__name__}: " if isinstance(told, BaseException) else ""
    text = " ".join(f"{kind}{told}".split())
    return text if len(text) <= 200 else text[:200] + "..."
