"""Lines as a user types them: edited, remembered, or piped in."""

import os
import readline
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROMPT = "you> "
HISTORY_LINES = 1000


@contextmanager
def history(path: Path) -> Iterator[None]:
    """Makes earlier lines available to the arrow keys, and keeps those typed in the block.

    A history that cannot be read or written is done without.
    """
    if not is_interactive():
        yield
        return
    readline.clear_history()
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Questions may be private: no other user shall read them.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(path)


def is_interactive() -> bool:
    """Whether lines are typed and shown on a terminal; only then can they be edited."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def read_line() -> str | None:
    """The next line without blanks around it; None at the end of input."""
    try:
        if is_interactive():
            return input(PROMPT).strip()
        if sys.stdin.isatty():  # the answers go elsewhere, and so may the prompt not go with them
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
        line = sys.stdin.readline()
    except EOFError:
        return None
    return line.strip() if line else None


def read_piped() -> str:
    """All of standard input where that is a pipe or a file; "" where it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.read()
