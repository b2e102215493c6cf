"""What one encoder replica does with a job: decode, preprocess, wait, encode.

Knows nothing of Ray or gRPC: plain data in, plain data out.
"""

import asyncio
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from protos.media.images import SETTINGS_NAME, Grid, ImageSettings, grid_thw
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError
from vision_service.jobs import Encoded, EncodeJob, FloatArray, Timings, error_to_plain
from vision_service.media.images import ImageLimits, decode_rgb, read_size
from vision_service.media.preprocess import to_patches
from vision_service.replicas.batching import BatchEncoder, PatchBatcher
from vision_service.towers.torch_tower import Tower

logger = logging.getLogger(__name__)

_DECODERS = 2  # images decoded at once; bounds their memory (a 40 M pixel RGBA one: 0.5 GB)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """The settings a replica needs, as plain values."""

    bundle: str
    device: str
    dtype: str
    threads: int
    max_batch_patches: int
    max_queued_patches: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_patches: int


class Replica:
    """Encodes jobs; one per process."""

    def __init__(
        self, settings: ReplicaSettings, images: ImageSettings, tower: BatchEncoder
    ) -> None:
        self._images = images
        self._max_patches = settings.max_image_patches
        self._limits = ImageLimits(
            max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
        )
        self._batcher = PatchBatcher(
            tower,
            max_batch_patches=settings.max_batch_patches,
            max_queued_patches=settings.max_queued_patches,
        )
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")

    @classmethod
    def load(cls, settings: ReplicaSettings) -> "Replica":
        """Loads the tower and the image settings of the bundle.

        Raises:
            BundleError: a file or key is missing or damaged.
        """
        # Ray sets OMP_NUM_THREADS=1 for actors; the setting decides instead.
        torch.set_num_threads(settings.threads)
        bundle = Path(settings.bundle)
        images = ImageSettings.from_file(bundle / SETTINGS_NAME)
        return cls(
            settings,
            images,
            Tower.load(bundle, device=settings.device, dtype=settings.dtype),
        )

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Encodes a job; both are plain data (see jobs.py), errors included."""
        try:
            encoded = await self._encode(EncodeJob.from_plain(plain))
        except ServiceError as error:
            return error_to_plain(error)
        except Exception:  # The process edge: no library's exception may have to be unpickled.
            failure = error_to_plain(InternalError("internal error"))
            return {**failure, "traceback": traceback.format_exc()}
        return encoded.to_plain()

    async def _encode(self, job: EncodeJob) -> Encoded:
        arrived_s = time.monotonic()
        patches = await self._patch_count(job)
        with self._batcher.reservation(patches):
            loop = asyncio.get_running_loop()
            pixels, grid, preprocess_ms = await loop.run_in_executor(
                self._decoders, self._preprocess, job
            )
            result = await self._batcher.encode(pixels, grid)
        # Whatever was neither preprocessing nor the tower was waiting for one of them.
        busy_ms = preprocess_ms + result.encode_ms
        total_ms = (time.monotonic() - arrived_s) * 1e3
        queue_ms = (arrived_s - job.sent_at_s) * 1e3 + max(0.0, total_ms - busy_ms)
        return Encoded(
            grid=grid,
            features=result.features,
            timings=Timings(
                queue_ms=max(0.0, queue_ms),
                preprocess_ms=preprocess_ms,
                encode_ms=result.encode_ms,
            ),
        )

    async def _patch_count(self, job: EncodeJob) -> int:
        """Patches the job will have, from its header alone."""
        if job.grid is not None:
            return job.grid.patches
        return await asyncio.to_thread(self._image_patch_count, job.image or b"")

    def _image_patch_count(self, image: bytes) -> int:
        size = read_size(image, self._limits)
        # EXIF orientation may swap the sides, which leaves the number of patches the same.
        patches = grid_thw(size.height, size.width, self._images, field="image").patches
        if patches > self._max_patches:
            raise InvalidRequest(
                f"image has {patches} patches, at most {self._max_patches} are accepted",
                reason=Reason.IMAGE_TOO_LARGE,
                param="image",
            )
        return patches

    def _preprocess(self, job: EncodeJob) -> tuple[FloatArray, Grid, float]:
        started_s = time.perf_counter()
        if job.pixel_values is not None and job.grid is not None:
            pixels, grid = job.pixel_values, job.grid
        else:
            rgb = decode_rgb(job.image or b"", self._limits)
            height, width = rgb.shape[:2]
            grid = grid_thw(height, width, self._images, field="image")
            check_expected(grid, job.expected_grid)
            pixels, grid = to_patches(rgb, self._images)
        return pixels, grid, (time.perf_counter() - started_s) * 1e3


def check_expected(grid: Grid, expected: Grid | None) -> None:
    """Compares an image's grid with the one the caller planned with.

    Raises:
        InvalidRequest: SHAPE_MISMATCH.
    """
    if expected is not None and grid != expected:
        raise InvalidRequest(
            f"expected_grid_thw is {expected}, the image has {grid} patches",
            reason=Reason.SHAPE_MISMATCH,
            param="expected_grid_thw",
        )
