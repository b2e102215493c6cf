"""What crosses the border between the gRPC front and the encoder replicas.

Both sides work with the frozen classes below; on the way they are plain dictionaries of
numbers, bytes and NumPy arrays, so that nothing from a client is ever unpickled as an object
and no library's exception has to be importable on the other side.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from protos.media.images import Grid, PixelRange
from protos.media.videos import FrameSampling, SampledFrames
from protos.tandem.v1 import vision_pb2
from protos.wire.errors import Reason, ServiceError, error_for

FloatArray = npt.NDArray[np.float32]


class Patches(NamedTuple):
    """A preprocessed image: `pixel_values` is float32 [P, D]."""

    pixel_values: FloatArray
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """An image file.

    Attributes:
        data: The file.
        expected_grid: The grid its sender expects of it; None: none in particular.
        areas: What it is resized within; None: the checkpoint's areas.
    """

    data: bytes
    expected_grid: Grid | None = None
    areas: PixelRange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """Some frames of a video file; `indices` are F places, even in number, not descending."""

    data: bytes
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrames:
    """F frames of a video as image files, even in number."""

    images: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """One image, or some temporal patches of a video, to encode."""

    source: EncodedImage | Patches

    def to_plain(self) -> dict[str, Any]:
        """The job without any class of ours."""
        if isinstance(self.source, Patches):
            return {"pixel_values": self.source.pixel_values, "grid": tuple(self.source.grid)}
        expected, areas = self.source.expected_grid, self.source.areas
        return {
            "image": self.source.data,
            "expected_grid": None if expected is None else tuple(expected),
            "areas": None if areas is None else tuple(areas),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Undoes `to_plain`."""
        if "pixel_values" in plain:
            return cls(source=Patches(plain["pixel_values"], Grid(*plain["grid"])))
        expected, areas = plain["expected_grid"], plain["areas"]
        return cls(
            source=EncodedImage(
                data=plain["image"],
                expected_grid=None if expected is None else Grid(*expected),
                areas=None if areas is None else PixelRange(*areas),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Features of one image: float32 [levels, N, H], level 0 the embeddings.

    `summary` is what the front sends on at the end: where the time went.
    """

    grid: Grid
    features: FloatArray
    summary: vision_pb2.EncodeSummary

    def to_plain(self) -> dict[str, Any]:
        """The result without any class of ours."""
        return {
            "grid": tuple(self.grid),
            "features": self.features,
            "summary": {field.name: value for field, value in self.summary.ListFields()},
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Undoes `to_plain`."""
        return cls(
            grid=Grid(*plain["grid"]),
            features=plain["features"],
            summary=vision_pb2.EncodeSummary(**plain["summary"]),
        )


class EncodersNotStarted(Exception):
    """There are no encoders; the text is one line that says why."""


class Encoders(Protocol):
    """Whatever encodes a job: the Ray Serve replicas, or a fake in tests."""

    async def encode(self, job: EncodeJob) -> Encoded:
        """Encodes one image.

        Raises:
            ServiceError: the image is bad, a queue is full, or no replica is there.
        """
        ...


class Videos(Protocol):
    """Whatever reads videos: the reader processes, or a fake in tests."""

    async def sample(self, file: bytes, sampling: FrameSampling) -> SampledFrames:
        """Says which frames of a file are seen, and when.

        Raises:
            ServiceError: the video is bad or beyond a limit.
        """
        ...

    async def patches(self, source: VideoFile | EncodedFrames, grid: Grid) -> Patches:
        """Decodes frames, resizes them to the grid and cuts them.

        Args:
            source: F = 2 * grid.t frames.
            grid: Temporal patches, rows, columns.

        Raises:
            ServiceError: the video is bad or beyond a limit.
        """
        ...


class Page(NamedTuple):
    """One page of a PDF: a PNG, and the text in it."""

    image: bytes
    text: str


class Pdfs(Protocol):
    """Whatever reads PDFs: the reader processes, or a fake in tests."""

    async def render(self, file: bytes, *, page_pixels: int, max_pages: int) -> list[Page]:
        """Makes an image and a text of every page, in order.

        Args:
            file: The PDF.
            page_pixels: The longer side of each image.
            max_pages: A PDF of more is refused.

        Raises:
            ServiceError: the PDF is bad or beyond a limit, or PDFs are not read here.
        """
        ...


def error_to_plain(error: ServiceError) -> dict[str, Any]:
    """A service error as data."""
    return {
        "error": {
            "reason": error.reason.value,
            "message": error.message,
            "param": error.param,
            "retry_after_s": error.retry_after_s,
        }
    }


def error_from_plain(plain: dict[str, Any]) -> ServiceError:
    """Undoes `error_to_plain`."""
    fields = plain["error"]
    return error_for(
        Reason(fields["reason"]),
        fields["message"],
        param=fields["param"],
        retry_after_s=fields["retry_after_s"],
    )
