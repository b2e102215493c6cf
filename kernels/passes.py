"""Passes of a tower's graph which images may leave while they run: their rows are then left out.

What the operators know of a pass belongs to the thread that runs it; see native/runtime/members.h.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from kernels import library

NEVER = np.iinfo(np.int32).max  # an image that stays


@contextmanager
def running(
    bounds: npt.NDArray[np.int64],
    leaves_at: npt.NDArray[np.int32],
    rows_computed: npt.NDArray[np.int64],
) -> Iterator[None]:
    """Makes every run of a graph in this block, on this thread, a pass of these images.

    Each operator of ours is a step, counted from 0. One that computes rows of all images leaves
    out those of images whose step has come; what it returns for them means nothing.

    Args:
        bounds: int64 [images + 1], the patches where images begin and end, from 0 on.
        leaves_at: int32 [images], the step from which on an image is left out, or `NEVER`. Other
            threads may lower it, never raise it, while the block runs.
        rows_computed: int64 [images], to which the rows are added that operators compute.
    """
    pointers = (
        array.ctypes.data_as(ctypes.c_void_p) for array in (bounds, leaves_at, rows_computed)
    )
    _native().tandem_begin_pass(*pointers, ctypes.c_size_t(len(leaves_at)))
    try:
        yield
    finally:
        _native().tandem_end_pass()


@functools.cache
def _native() -> ctypes.CDLL:
    return ctypes.CDLL(str(library.path()))
