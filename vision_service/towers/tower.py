"""What a vision tower is to the rest of the tier, and which one a replica gets."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from kernels import library
from protos.bundle.manifest import Bundle
from vision_service.jobs import FloatArray, Patches

logger = logging.getLogger(__name__)


class BatchEncoder(Protocol):
    """A loaded tower. One thread calls `encode`, one call at a time."""

    def encode(
        self, batch: Sequence[Patches], abandoned: Callable[[], bool] = ...
    ) -> list[FloatArray]:
        """Encodes images together; each attends to itself alone.

        Args:
            batch: Patches, float32 [P, D], and the grid of each image; arrays may be read-only.
            abandoned: Asked now and then; once it is true nobody waits for the batch, and it may
                be dropped by raising anything.

        Returns:
            Features of each image, float32 [levels, N, H]; level 0 holds the embeddings.

        Raises:
            FloatingPointError: the output is not finite.
        """
        ...


def load_tower(
    bundle: Bundle, *, tower: str, threads: int, device: str, dtype: str
) -> BatchEncoder:
    """The tower that runs a bundle's vision weights.

    Args:
        bundle: What to load.
        tower: A form of `onnx_tower.FORMS`, "torch", or "auto" for the fastest one.
        threads: Threads of this process that compute.
        device: "cpu" or "cuda".
        dtype: Arithmetic of the tower: "float32", "bfloat16" or "float16".

    Raises:
        BundleError: a file or key is missing, or weights and config disagree.
    """
    form = chosen(tower, device=device, dtype=dtype)
    # Imported here because a tower brings seconds of libraries, and each other ones.
    if form == "torch":
        from vision_service.towers.torch_tower import TorchTower

        return TorchTower.load(bundle, threads=threads, device=device, dtype=dtype)
    from vision_service.towers.onnx_tower import OnnxTower

    logger.info("tower: %s, %s", form, library.instruction_set() or "ONNX Runtime's kernels")
    return OnnxTower.load(bundle.path, form=form, threads=threads)


def chosen(tower: str, *, device: str, dtype: str) -> str:
    """What "auto" stands for here; any other choice as it is."""
    if tower != "auto":
        return tower
    is_plain = device == "cpu" and dtype == "float32"
    return "fast" if is_plain and library.path() is not None else "torch"
