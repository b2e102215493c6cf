"""Memory that a replica and a boxed worker share: files on the way in, arrays on the way out.

Both are anonymous files (memfd) that are sealed before they are handed over: their size and bytes
can then be changed by nobody, so that neither end trusts the other while it reads.
"""

import fcntl
import hashlib
import math
import mmap
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING

DTYPES = ("uint8", "float32", "int64")  # what arrays may hold


class SharedFile:
    """A client's file as workers get it; a context manager that frees it at the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.descriptor = os.memfd_create("tandem-file", _FLAGS)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)

    @cached_property
    def digest(self) -> bytes:
        """Names the file's bytes; SHA-256."""
        return hashlib.sha256(self.data).digest()

    def close(self) -> None:
        """Frees the memory; a second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ArrayMemory:
    """An array that a worker fills and hands over.

    Args:
        shape: Of the array, not empty.
        dtype: One of `DTYPES`.
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.descriptor = os.memfd_create("tandem-array", _FLAGS)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        os.ftruncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self.array: npt.NDArray[Any] = np.frombuffer(self._map, dtype).reshape(self.shape)

    def seal(self) -> None:
        """Ends writing.

        Raises:
            BufferError: somebody still holds the array or a part of it.
        """
        del self.array
        self._map.close()
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)


def open_array(descriptor: int, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
    """The array in a worker's sealed memory, read-only and without a copy.

    Args:
        descriptor: Of an `ArrayMemory`; may be closed afterwards.
        shape: Of the array, as the worker says.
        dtype: Of the array, as the worker says.

    Raises:
        ValueError: the memory is not sealed, or not that of such an array.
        OSError: the descriptor is none of a memory file.
    """
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError("the memory is not sealed")
    if dtype not in DTYPES or not shape or any(extent < 1 for extent in shape):
        raise ValueError("no such array")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if os.fstat(descriptor).st_size != size:
        raise ValueError("the memory has another size than its array")
    mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    return np.frombuffer(mapped, dtype).reshape(tuple(shape))
