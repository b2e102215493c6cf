"""The compiled operators, where there are any for this machine."""

import ctypes
import functools
from pathlib import Path

from kernels.build import LIBRARY


def path() -> Path | None:
    """The library to register with a session; None where it was not built or cannot run here."""
    return LIBRARY if instruction_set() else None


@functools.cache
def instruction_set() -> str:
    """What the kernels use: "avx512", "avxvnni", "avx2", or "" where they cannot run."""
    loaded = _loaded()
    if loaded is None:
        return ""
    loaded.tandem_instruction_set.restype = ctypes.c_char_p
    found: bytes = loaded.tandem_instruction_set()
    return found.decode()


@functools.cache
def has_tiles() -> bool:
    """Whether the tower's kernels use AMX."""
    loaded = _loaded()
    return loaded is not None and bool(loaded.tandem_has_tiles())


def _loaded() -> ctypes.CDLL | None:
    if not LIBRARY.is_file():
        return None
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError:  # built for another machine
        return None
