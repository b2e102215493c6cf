"""Commands that are modules of other packages, in this process's place."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from deploy.commands import extras
from deploy.terminal.screen import CommandError


def become(extra: str, module: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by a module of another package.

    Raises:
        CommandError: a library that module needs is not installed.
    """
    need(extra)
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def need(extra: str) -> None:
    """Refuses where a library of an extra is not installed.

    Raises:
        CommandError: naming the first of them, and how to install it.
    """
    missing = [name for name in extras.required(extra) if extras.installed(name) is None]
    if missing:
        raise CommandError(
            f"{missing[0]} is not installed; this needs: pip install 'tandem-vlm[{extra}]'",
            exit_code=2,
        )
