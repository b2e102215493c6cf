"""Messages about images, and the encoders' plain data."""

from collections.abc import Iterator

from protos.media.images import PixelRange
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire import features
from protos.wire.errors import InvalidRequest
from vision_service.jobs import Encoded


def areas_from_proto(request: vision_pb2.EncodeRequest) -> PixelRange | None:
    """What an image is to be resized within; None: the checkpoint's areas.

    Raises:
        InvalidRequest: one of both is unset, or they are no range.
    """
    given = request.HasField("min_pixels"), request.HasField("max_pixels")
    if not any(given):
        return None
    areas = PixelRange(request.min_pixels, request.max_pixels)
    if not all(given) or not 1 <= areas.min_pixels <= areas.max_pixels:
        raise InvalidRequest(
            f"min_pixels is {areas.min_pixels} and max_pixels is {areas.max_pixels}, expected"
            " neither, or 1 <= min_pixels <= max_pixels",
            param="min_pixels",
        )
    return areas


def planned_patches(request: vision_pb2.EncodeRequest) -> int:
    """Patches of an image as far as the request tells: nothing of it is checked yet."""
    grid = request.expected_grid_thw
    if request.WhichOneof("source") == "patches":
        grid = request.patches.grid_thw
    return max(0, grid.t) * max(0, grid.h) * max(0, grid.w)


def encoded_to_proto(encoded: Encoded, form: str) -> Iterator[vision_pb2.EncodeChunk]:
    """The messages of an Encode stream, features in this form of `protos.wire.features`."""
    levels, rows, _ = encoded.features.shape
    header = vision_pb2.EncodeHeader(
        grid_thw=tensor_pb2.GridTHW(t=encoded.grid.t, h=encoded.grid.h, w=encoded.grid.w),
        token_count=rows,
        level_count=levels,
    )
    yield vision_pb2.EncodeChunk(header=header)
    for level, start, values in features.parts(encoded.features, form):
        chunk = vision_pb2.EncodeChunk()
        features.fill(chunk.features, values, level=level, row_offset=start, form=form)
        yield chunk
    yield vision_pb2.EncodeChunk(summary=encoded.summary)
