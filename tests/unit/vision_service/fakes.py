"""Stand-ins with the interfaces of the tower and of the encoder pool."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np

from protos.media.images import Grid
from protos.media.videos import FrameSampling, SampledFrames
from protos.tandem.v1 import vision_pb2
from vision_service.jobs import (
    Encoded,
    EncodedFrames,
    EncodeJob,
    FloatArray,
    Page,
    Patches,
    VideoFile,
)
from vision_service.towers.members import Abandoned, Members


class FakeTower:
    """Adds one to each patch's mean; blocks while `gate` is closed; notes every batch.

    An image whose first value is negative fails its whole batch.
    """

    def __init__(self, levels: int = 2, hidden: int = 4, *, computes_all: bool = True) -> None:
        self.computes_all = computes_all
        self.batches: list[list[int]] = []
        self.remained: list[list[int]] = []  # of each batch, the members when the gate opened
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.saw_abandoned = threading.Event()
        self._shape = (levels, hidden)

    def encode(
        self,
        batch: Sequence[Patches],
        members: Members | None = None,
    ) -> list[FloatArray]:
        members = members or Members(len(batch))
        self.batches.append([len(part) for part, _ in batch])
        self.entered.set()
        self.gate.wait()
        self.remained.append(members.remaining)
        if not members.remaining:
            self.saw_abandoned.set()
            raise Abandoned
        if any(part[0, 0] < 0 for part, _ in batch):
            raise ValueError("the tower does not like this image")
        levels, hidden = self._shape
        return [
            np.broadcast_to(
                part.mean(axis=1).reshape(1, -1, 4).mean(axis=2)[..., None] + 1,
                (levels, grid.tokens(2), hidden),
            ).astype(np.float32)
            for part, grid in batch
        ]


class FakeEncoders:
    """Answers every job with features that name their own level and row, or with an error."""

    def __init__(self, levels: int = 3, hidden: int = 8) -> None:
        self.jobs: list[EncodeJob] = []
        self.error: Exception | None = None
        self.grid = Grid(1, 4, 6)
        self.features: FloatArray | None = None  # what to answer in place of numbered rows
        self.hang = False
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._shape = (levels, hidden)

    async def encode(self, job: EncodeJob) -> Encoded:
        self.jobs.append(job)
        self.began.set()
        if self.error is not None:
            raise self.error
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        grid = job.source.grid if isinstance(job.source, Patches) else self.grid
        levels, hidden = self._shape
        rows = np.arange(grid.tokens(2), dtype=np.float32)[None, :, None]
        level = np.arange(levels, dtype=np.float32)[:, None, None] * 1e6
        return Encoded(
            grid=grid,
            features=(
                np.broadcast_to(level + rows, (levels, grid.tokens(2), hidden))
                if self.features is None
                else self.features
            ),
            summary=vision_pb2.EncodeSummary(queue_ms=1.0, preprocess_ms=2.0, encode_ms=3.0),
        )


class FakePdfs:
    """Makes two pages of what it was asked for."""

    async def render(self, file: bytes, *, page_pixels: int, max_pages: int) -> list[Page]:
        return [Page(file, f"{page_pixels} pixels"), Page(file, f"{max_pages} pages")]


class FakeVideos:
    """Chooses what it was asked for, and makes patches that hold their frame's place."""

    def __init__(self) -> None:
        self.samplings: list[FrameSampling] = []
        self.sources: list[VideoFile | EncodedFrames] = []

    async def sample(self, file: bytes, sampling: FrameSampling) -> SampledFrames:
        self.samplings.append(sampling)
        places = tuple(range(sampling.frame_count or sampling.min_frames))
        return SampledFrames(places, tuple(place / 2 for place in places), 64, 48)

    async def patches(self, source: VideoFile | EncodedFrames, grid: Grid) -> Patches:
        self.sources.append(source)
        return Patches(np.zeros((grid.patches, 96), np.float32), grid)
