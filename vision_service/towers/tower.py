"""What a vision tower is to the rest of the tier, and which one a replica gets."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kernels import library
from protos.bundle.manifest import Bundle
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Members

logger = logging.getLogger(__name__)

# What the fast form's features may lose, as cosines to float32 on every level: below, answers
# begin to differ.
LEAST_MEAN = 0.9995
LEAST_FIRST_PERCENTILE = 0.999


class BatchEncoder(Protocol):
    """A loaded tower. Two threads may call `encode` at once."""

    @property
    def computes_all(self) -> bool:
        """Whether an image that leaves a pass is computed to its end all the same."""
        ...

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """Encodes images together; each attends to itself alone.

        Args:
            batch: Patches, float32 [P, D], and the grid of each image; arrays may be read-only.
            members: The images, in the same order. One that leaves costs nothing more from the
                tower's next block on (see `computes_all`) and changes nothing for the others. None:
                all stay.

        Returns:
            Features of each image, float32 [levels, N, H]; level 0 holds the embeddings. Of one
            that left there are no rows.

        Raises:
            Abandoned: all images left; the pass is dropped before its next block.
            FloatingPointError: the output is not finite.
        """
        ...


def load_tower(
    bundle: Bundle, *, tower: str, threads: int, device: str, dtype: str
) -> BatchEncoder:
    """The tower that runs a bundle's vision weights.

    Args:
        bundle: What to load.
        tower: A form of `onnx_tower.FORMS`, "torch", or "auto" for the fastest one that keeps
            its bars.
        threads: Threads of this process that compute.
        device: "cpu" or "cuda".
        dtype: Arithmetic of the tower: "float32", "bfloat16" or "float16".

    Raises:
        BundleError: a file or key is missing, or weights and config disagree.
    """
    form = chosen(tower, bundle.manifest.quality, device=device, dtype=dtype)
    # Imported here because a tower brings seconds of libraries, and each other ones.
    if form == "torch":
        from vision_service.towers.torch_tower import TorchTower

        return TorchTower.load(bundle, threads=threads, device=device, dtype=dtype)
    from vision_service.towers.onnx_tower import OnnxTower

    logger.info("tower: %s, %s", form, library.instruction_set() or "ONNX Runtime's kernels")
    return OnnxTower.load(bundle.path, form=form, threads=threads)


def chosen(tower: str, quality: Mapping[str, Any], *, device: str, dtype: str) -> str:
    """What "auto" stands for here; any other choice as it is.

    The fast form where the bundle's own figures keep the bars, the exact one where they do not.

    Args:
        tower: The setting.
        quality: The manifest's entry of that name, with the figures of `deploy.export.vision.loss`.
        device: "cpu" or "cuda".
        dtype: Arithmetic of the tower.
    """
    if tower != "auto":
        return tower
    if (device, dtype) != ("cpu", "float32") or library.path() is None:
        return "torch"
    return "fast" if _keeps_bars(quality.get("tower")) else "exact"


def _keeps_bars(measured: Mapping[str, Any] | None) -> bool:
    return measured is not None and all(
        level["mean"] >= LEAST_MEAN and level["first_percentile"] >= LEAST_FIRST_PERCENTILE
        for level in measured["levels"]
    )
