"""Code blocks and links of README.md, and the commands of CONTRIBUTING.md."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

SHELLS = ("sh", "bash", "console", "shell")
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
_SEPARATOR = re.compile(r"\s(?:&&|\|\||[;|&])\s|\s&$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(document: Path = README) -> list[Block]:
    """Every fenced block, in order."""
    return [Block(language, text) for language, text in _BLOCK.findall(document.read_text())]


def links() -> list[str]:
    """Targets of links to files of the repository."""
    prose = _BLOCK.sub("", README.read_text())
    return _LINK.findall(prose)


def commands(document: Path = README) -> Iterator[list[str]]:
    """Every command of every shell block, split into words.

    In a console block, lines that start with `$ ` are commands and the others their output.
    """
    for block in blocks(document):
        if block.language in SHELLS:
            lines = block.text.replace("\\\n", " ").splitlines()
            if block.language == "console":
                lines = [line[2:] for line in lines if line.startswith("$ ")]
            for line in lines:
                yield from _split(line)


def _split(line: str) -> Iterator[list[str]]:
    for part in _SEPARATOR.split(line):
        words = shlex.split(part, comments=True)
        if words:
            yield words
