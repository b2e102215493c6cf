"""What a task is given in the box, and what is agreed about the messages on the way there.

A task is a function `task(given: Given) -> dict`, named "module:function". What it returns must be
JSON; a `ServiceError` it raises reaches the caller as it is.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy.typing as npt

from vision_service.box.memory import ArrayMemory

HELLO = b"ready"  # a worker's first message; its process's descriptor comes with it
MAX_MESSAGE_BYTES = 128 * 1024  # of one message's JSON; files and arrays travel beside it
MAX_ARRAYS = 16  # of one result


@dataclass(slots=True, kw_only=True)
class Given:
    """One job inside the box.

    Attributes:
        arguments: What the caller said; JSON.
        descriptor: Of the client's file.
        made: Arrays of the result so far.
    """

    arguments: Mapping[str, Any]
    descriptor: int
    made: list[ArrayMemory] = field(default_factory=list)

    def data(self) -> bytes:
        """The client's file."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)

    def open(self) -> BinaryIO:
        """The client's file, to be read piece by piece."""
        return os.fdopen(os.dup(self.descriptor), "rb")

    def new_array(self, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
        """The next array of the result, to be filled; the task must not keep it.

        Args:
            shape: Not empty.
            dtype: "float32", "uint8" or "int64".
        """
        memory = ArrayMemory(shape, dtype)
        self.made.append(memory)
        return memory.array

    def close(self) -> None:
        """Frees the file and this end's hold on the arrays."""
        os.close(self.descriptor)
        for memory in self.made:
            os.close(memory.descriptor)
