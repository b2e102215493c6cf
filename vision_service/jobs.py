"""What crosses the border between the gRPC front and the encoder replicas.

Both sides work with the frozen classes below; on the way they are plain dictionaries of
numbers, bytes and NumPy arrays, so that nothing from a client is ever unpickled as an object
and no library's exception has to be importable on the other side.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from protos.media.images import Grid
from protos.wire.errors import Reason, ServiceError, error_for

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """One image to encode: either encoded bytes, or pixels with their grid.

    `pixel_values` is float32 [P, D]; `sent_at_s` is `time.monotonic()` in the front, which on
    Linux every process of the machine shares.
    """

    image: bytes | None = None
    pixel_values: FloatArray | None = None
    grid: Grid | None = None
    expected_grid: Grid | None = None
    sent_at_s: float

    def to_plain(self) -> dict[str, Any]:
        """The job without any class of ours."""
        return {
            "image": self.image,
            "pixel_values": self.pixel_values,
            "grid": _grid_to_plain(self.grid),
            "expected_grid": _grid_to_plain(self.expected_grid),
            "sent_at_s": self.sent_at_s,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Undoes `to_plain`."""
        return cls(
            image=plain["image"],
            pixel_values=plain["pixel_values"],
            grid=_grid_from_plain(plain["grid"]),
            expected_grid=_grid_from_plain(plain["expected_grid"]),
            sent_at_s=plain["sent_at_s"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of one encode went, milliseconds."""

    queue_ms: float
    preprocess_ms: float
    encode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Features of one image: float32 [levels, N, H], level 0 the embeddings."""

    grid: Grid
    features: FloatArray
    timings: Timings

    def to_plain(self) -> dict[str, Any]:
        """The result without any class of ours."""
        return {
            "grid": _grid_to_plain(self.grid),
            "features": self.features,
            "timings": asdict(self.timings),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Undoes `to_plain`."""
        return cls(
            grid=Grid(*plain["grid"]),
            features=plain["features"],
            timings=Timings(**plain["timings"]),
        )


class Encoders(Protocol):
    """Whatever encodes a job: the Ray Serve replicas, or a fake in tests."""

    async def encode(self, job: EncodeJob) -> Encoded:
        """Encodes one image.

        Raises:
            ServiceError: the image is bad, a queue is full, or no replica is there.
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


def _grid_to_plain(grid: Grid | None) -> tuple[int, int, int] | None:
    return None if grid is None else (grid.t, grid.h, grid.w)


def _grid_from_plain(plain: tuple[int, int, int] | None) -> Grid | None:
    return None if plain is None else Grid(*plain)
