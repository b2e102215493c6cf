"""Images as clients send them: URLs, header checks, and the plan that a header allows.

Nothing here decodes pixels: an image's header gives its size, the size gives its grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from gateway.media.data_urls import data_url_bytes
from protos.media import limits as defaults
from protos.media.formats import ImageHeader, read_header
from protos.media.images import Grid, ImageSettings, grid_thw
from protos.media.limits import check_bytes, image_too_large
from protos.wire.errors import InvalidRequest, Reason

DIGEST_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one request may bring; sizes in bytes and in pixels before resizing."""

    max_image_bytes: int = defaults.MAX_IMAGE_BYTES
    max_image_pixels: int = defaults.MAX_IMAGE_PIXELS
    max_request_images: int = defaults.MAX_REQUEST_IMAGES
    max_request_bytes: int = defaults.MAX_REQUEST_BYTES
    max_request_pixels: int = defaults.MAX_REQUEST_PIXELS
    max_image_tokens: int | None = None  # None: as many as the checkpoint's largest area gives


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """One image of a request, planned but not decoded."""

    data: bytes
    field: str  # where the client put it, for errors
    header: ImageHeader
    grid: Grid
    token_count: int
    digest: bytes  # keyed BLAKE3, 32 bytes


def image_bytes(url: str, *, field: str, limits: MediaLimits | None = None) -> bytes:
    """The bytes behind an image URL; only `data:` URLs in base64 are accepted.

    The URL's media type is ignored: the bytes themselves say what they are.

    Args:
        url: What the client sent.
        field: Its place in the request, for errors.
        limits: Defaults where None.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, any other kind of URL; INVALID_IMAGE, not base64 or
            empty; IMAGE_TOO_LARGE, found before anything is decoded.
    """
    limits = limits or MediaLimits()
    if url[:5].lower() != "data:":
        raise InvalidRequest(
            f"{field} has a URL that is not allowed, expected a data: URL",
            reason=Reason.URL_NOT_ALLOWED,
            param=field,
        )
    data = data_url_bytes(url, field=field, most=limits.max_image_bytes)
    check_bytes(data, field=field, most=limits.max_image_bytes)
    return data


def plan_images(
    sources: Sequence[tuple[str, bytes]],
    settings: ImageSettings,
    *,
    limits: MediaLimits,
    digest_key: bytes,
) -> tuple[PlannedImage, ...]:
    """Checks all images of a request and plans their placeholders.

    Args:
        sources: Field and bytes of each image, in prompt order.
        settings: The checkpoint's image settings.
        limits: What one request may bring.
        digest_key: 32 bytes; images have equal digests only under the same key.

    Raises:
        InvalidRequest: IMAGE_TOO_LARGE, INVALID_IMAGE or UNSUPPORTED_MEDIA, naming the field.
    """
    _check_counts(sources, limits)
    planned = []
    pixels = 0
    for field, data in sources:
        header = read_header(data, field=field, max_pixels=limits.max_image_pixels)
        pixels += header.width * header.height
        if pixels > limits.max_request_pixels:
            raise image_too_large(field, "pixels in all images", pixels, limits.max_request_pixels)
        grid = grid_thw(header.height, header.width, settings, field=field)
        tokens = grid.tokens(settings.merge_size)
        if limits.max_image_tokens is not None and tokens > limits.max_image_tokens:
            raise image_too_large(field, "tokens", tokens, limits.max_image_tokens)
        planned.append(
            PlannedImage(
                data=data,
                field=field,
                header=header,
                grid=grid,
                token_count=tokens,
                digest=blake3(data, key=digest_key).digest(),
            )
        )
    return tuple(planned)


def _check_counts(sources: Sequence[tuple[str, bytes]], limits: MediaLimits) -> None:
    if len(sources) > limits.max_request_images:
        raise InvalidRequest(
            f"messages hold {len(sources)} images, expected at most {limits.max_request_images}",
            reason=Reason.IMAGE_TOO_LARGE,
            param="messages",
        )
    for field, data in sources:
        check_bytes(data, field=field, most=limits.max_image_bytes)
    total = sum(len(data) for _, data in sources)
    if total > limits.max_request_bytes:
        raise image_too_large("messages", "bytes in all images", total, limits.max_request_bytes)
