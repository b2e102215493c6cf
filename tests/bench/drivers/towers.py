"""What drivers of vision towers share: the images they are given, and how they answer.

NumPy and the standard library only, because every peer's environment imports this.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One image as a tower takes it.

    Attributes:
        pixels: Patches in merge order, float32 [P, patch_dim], both frames of each alike.
        grid: Its patches: frames, rows, columns.
        feeds: What depends on the grid, by the names of the ONNX graphs' inputs.
    """

    pixels: FloatArray
    grid: tuple[int, int, int]
    feeds: Mapping[str, npt.NDArray[Any]]


def path_of(folder: Path, patches: int) -> Path:
    """Where the image of so many patches lies."""
    return folder / f"{patches}.npz"


def write(file: Path, given: Given) -> None:
    """Writes an image for other environments."""
    parts: dict[str, Any] = {"pixels": given.pixels, "grid": np.array(given.grid), **given.feeds}
    np.savez(file, **parts)


def read(file: Path) -> Given:
    """Reads what `write` wrote."""
    with np.load(file) as found:
        parts = {name: found[name] for name in found.files}
    pixels, (t, h, w) = parts.pop("pixels"), parts.pop("grid").tolist()
    return Given(pixels=pixels, grid=(t, h, w), feeds=parts)


class TowerDriver(ABC):
    """One tower as an engine (see `protocol`): its prefill is one image's pass.

    Args:
        inputs: Folder of the images.
    """

    def __init__(self, inputs: Path) -> None:
        self._inputs = inputs
        self._read: dict[int, Any] = {}

    @abstractmethod
    def describe(self) -> str:
        """See `protocol.Engine`."""

    def prepared(self, given: Given) -> Any:
        """What `encode` takes; made once for each image and not timed."""
        return given

    @abstractmethod
    def encode(self, prepared: Any) -> FloatArray:
        """Features of an image, float32 [levels, N, hidden]: embeddings, then DeepStack."""

    def prefill(self, tokens: int) -> float:
        """Seconds of one pass over the image of `tokens` patches."""
        prepared = self._prepared(tokens)
        began = time.perf_counter()
        self.encode(prepared)
        return time.perf_counter() - began

    def write(self, tokens: int, file: str) -> None:
        """Writes the features of the image of `tokens` patches."""
        np.save(file, self.encode(self._prepared(tokens)))

    def hold(self, batch: int, context: int) -> None:
        """See `protocol.Engine`.

        Raises:
            ValueError: always; a tower holds no sequences.
        """
        raise ValueError(f"{batch} sequences of {context}, but a tower holds none")

    def decode(self, tokens: int) -> list[float]:
        """See `hold`."""
        raise ValueError(f"{tokens} tokens, but a tower decodes none")

    def drop(self) -> None:
        """See `hold`."""
        raise ValueError("a tower holds no sequences")

    def _prepared(self, patches: int) -> Any:
        if patches not in self._read:
            self._read[patches] = self.prepared(read(path_of(self._inputs, patches)))
        return self._read[patches]
