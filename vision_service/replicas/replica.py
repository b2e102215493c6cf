"""What one encoder replica does with a job: decode, preprocess, wait, encode.

Knows nothing of Ray or gRPC: plain data in, plain data out.
"""

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from protos.bundle.manifest import Bundle
from protos.media.images import SETTINGS_NAME, Grid, ImageSettings
from protos.media.limits import check_bytes
from protos.tandem.v1 import vision_pb2
from protos.wire.errors import InternalError, ServiceError
from vision_service.box.box import ParserBox, Result
from vision_service.box.memory import SharedFile
from vision_service.jobs import Encoded, EncodedImage, EncodeJob, Patches, error_to_plain
from vision_service.media import boxed
from vision_service.media.images import FIELD, ImageLimits
from vision_service.replicas.batching import BatchResult, PatchBatcher
from vision_service.routing.wire import Reporter
from vision_service.scaling.cost import Work
from vision_service.scaling.meter import LoadMeter
from vision_service.towers.tower import BatchEncoder, load_tower

logger = logging.getLogger(__name__)


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
    """Encodes jobs; one per process.

    Args:
        settings: The replica's.
        plan: How images are read.
        tower: What encodes them.
        box: Where they are decoded.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        plan: boxed.ImagePlan,
        tower: BatchEncoder,
        box: ParserBox,
    ) -> None:
        self._plan = plan
        self._box = box
        self._meter = LoadMeter(time.perf_counter)
        self.reporter = Reporter(self._meter)
        self._batcher = PatchBatcher(
            tower,
            max_batch_patches=settings.max_batch_patches,
            max_queued_patches=settings.max_queued_patches,
            meter=self._meter,
        )

    @classmethod
    def load(cls, settings: ReplicaSettings) -> "Replica":
        """Loads the tower and the image settings of the bundle.

        Raises:
            BundleError: a file or key is missing or damaged.
        """
        bundle = Bundle.open(settings.bundle)
        images = ImageSettings.from_file(bundle.path / SETTINGS_NAME)
        plan = image_plan(settings, images)
        box = boxed.new_box(plan)  # it starts while the tower is loaded
        tower = load_tower(
            bundle,
            tower=settings.tower,
            threads=settings.threads,
            device=settings.device,
            dtype=settings.dtype,
        )
        return cls(settings, plan, tower, box)

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Encodes a job; both are plain data (see jobs.py), errors included."""
        self.reporter.took(plain)
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
            with self._holding(source.grid):
                result = await self._batcher.encode(source)
            return _encoded(source.grid, result, started_s, preprocess_ms=0.0)
        return await self._encode_file(source, started_s)

    async def _encode_file(self, image: EncodedImage, started_s: float) -> Encoded:
        check_bytes(image.data, field=FIELD, most=self._plan.limits.max_bytes)
        plan = self._plan.of(areas=image.areas, expected_grid=image.expected_grid)
        with SharedFile(image.data) as file:
            # Whoever expects another grid than the image's is refused before it is decoded.
            grid = image.expected_grid
            if grid is None:
                grid = _grid((await self._box.run(boxed.job(boxed.GRID_TASK, file, plan))).values)
            with self._holding(grid):
                made = await self._box.run(boxed.job(boxed.PATCHES_TASK, file, plan))
                file.close()
                patches, preprocess_ms = _patches(made, grid)
                result = await self._batcher.encode(patches)
        return _encoded(grid, result, started_s, preprocess_ms=preprocess_ms)

    @contextmanager
    def _holding(self, grid: Grid) -> Iterator[None]:
        """Room in the queue for one image, counted as work as long."""
        with self._batcher.reservation(grid.patches), self._meter.holding(Work.of(grid)):
            yield


def image_plan(settings: ReplicaSettings, images: ImageSettings) -> boxed.ImagePlan:
    """How a replica of these settings reads images."""
    limits = ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    return boxed.ImagePlan(settings=images, limits=limits, max_patches=settings.max_image_patches)


def _grid(values: dict[str, Any]) -> Grid:
    """The grid that a worker found; it may say anything once a file has taken it over."""
    grid = values.get("grid")
    if not isinstance(grid, list) or len(grid) != 3 or not all(type(n) is int for n in grid):
        raise InternalError("internal error")
    return Grid(*grid)


def _patches(made: Result, grid: Grid) -> tuple[Patches, float]:
    (pixels,) = made.arrays
    if _grid(made.values) != grid or len(pixels) != grid.patches:
        raise InternalError("internal error")
    return Patches(pixels, grid), float(made.values["preprocess_ms"])


def _encoded(grid: Grid, result: BatchResult, started_s: float, *, preprocess_ms: float) -> Encoded:
    total_ms = (time.perf_counter() - started_s) * 1e3
    summary = vision_pb2.EncodeSummary(
        # Whatever was neither preprocessing nor the tower was waiting for one of them.
        queue_ms=max(0.0, total_ms - preprocess_ms - result.encode_ms),
        preprocess_ms=preprocess_ms,
        encode_ms=result.encode_ms,
    )
    return Encoded(grid=grid, features=result.features, summary=summary)
