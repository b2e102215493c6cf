"""What one encoder replica does with a job: decode, preprocess, wait, encode.

Knows nothing of Ray or gRPC: plain data in, plain data out.
"""

import asyncio
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from protos.bundle.manifest import Bundle
from protos.media.formats import ImageHeader
from protos.media.images import SETTINGS_NAME, Grid, ImageSettings, grid_thw
from protos.media.limits import image_too_large
from protos.tandem.v1 import vision_pb2
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError
from vision_service.jobs import Encoded, EncodedImage, EncodeJob, Patches, error_to_plain
from vision_service.media.images import FIELD, ImageLimits, checked_header, decode_rgb
from vision_service.media.preprocess import to_patches
from vision_service.replicas.batching import BatchResult, PatchBatcher
from vision_service.towers.tower import BatchEncoder, load_tower

logger = logging.getLogger(__name__)

_DECODERS = 2  # images decoded at once; bounds their memory (a 65 M pixel RGBA one: 0.8 GB)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSettings:
    """The settings a replica needs, as plain values."""

    bundle: str
    device: str
    tower: str
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
        bundle = Bundle.open(settings.bundle)
        images = ImageSettings.from_file(bundle.path / SETTINGS_NAME)
        tower = load_tower(
            bundle,
            tower=settings.tower,
            threads=settings.threads,
            device=settings.device,
            dtype=settings.dtype,
        )
        return cls(settings, images, tower)

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
        started_s = time.perf_counter()
        source = job.source
        if isinstance(source, Patches):
            with self._batcher.reservation(source.grid.patches):
                result = await self._batcher.encode(source)
            return _encoded(source.grid, result, started_s, preprocess_ms=0.0)
        header, grid = await asyncio.to_thread(self._inspect, source)
        with self._batcher.reservation(grid.patches):
            loop = asyncio.get_running_loop()
            patches, preprocess_ms = await loop.run_in_executor(
                self._decoders, self._preprocess, source.data, header, grid
            )
            result = await self._batcher.encode(patches)
        return _encoded(grid, result, started_s, preprocess_ms=preprocess_ms)

    def _inspect(self, image: EncodedImage) -> tuple[ImageHeader, Grid]:
        """What the header says, and the grid that follows from it; refuses what it can."""
        header = checked_header(image.data, self._limits)
        settings = self._images if image.areas is None else self._images.within(image.areas)
        grid = grid_thw(header.height, header.width, settings, field=FIELD)
        if grid.patches > self._max_patches:
            raise image_too_large(FIELD, "patches", grid.patches, self._max_patches)
        if image.expected_grid is not None and grid != image.expected_grid:
            raise InvalidRequest(
                f"expected_grid_thw is {image.expected_grid}, the image has {grid} patches",
                reason=Reason.SHAPE_MISMATCH,
                param="expected_grid_thw",
            )
        return header, grid

    def _preprocess(self, data: bytes, header: ImageHeader, grid: Grid) -> tuple[Patches, float]:
        started_s = time.perf_counter()
        pixels = to_patches(decode_rgb(data, header), grid, self._images)
        return Patches(pixels, grid), (time.perf_counter() - started_s) * 1e3


def _encoded(grid: Grid, result: BatchResult, started_s: float, *, preprocess_ms: float) -> Encoded:
    total_ms = (time.perf_counter() - started_s) * 1e3
    summary = vision_pb2.EncodeSummary(
        # Whatever was neither preprocessing nor the tower was waiting for one of them.
        queue_ms=max(0.0, total_ms - preprocess_ms - result.encode_ms),
        preprocess_ms=preprocess_ms,
        encode_ms=result.encode_ms,
    )
    return Encoded(grid=grid, features=result.features, summary=summary)
