"""Images as clients send them: URLs, header checks, and the plan that a header allows.

Nothing here decodes pixels: an image's header gives its size, the size gives its grid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from blake3 import blake3

from gateway.media.data_urls import data_url_bytes
from gateway.media.sizing import ImageSizing, planned_size
from gateway.media.sources import ByteLimit, not_allowed
from protos.media import limits as defaults
from protos.media.formats import ImageHeader, read_header
from protos.media.images import Grid, ImageSettings, PixelRange
from protos.media.limits import check_bytes, image_too_large
from protos.wire.errors import InvalidRequest, Reason

DIGEST_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLimits:
    """What a vision tier says one image may be: bytes and pixels before resizing, patches after.

    Of a video: bytes and seconds; of a PDF: bytes. Zero where it does not say.
    """

    max_image_bytes: int
    max_image_pixels: int
    max_image_patches: int
    max_video_bytes: int = 0
    max_video_seconds: float = 0.0
    max_pdf_bytes: int = 0

    def __str__(self) -> str:
        return (
            f"{self.max_image_bytes} bytes, {self.max_image_pixels} pixels,"
            f" {self.max_image_patches} patches"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one request may bring; sizes in bytes and in pixels before resizing."""

    max_image_bytes: int = defaults.MAX_IMAGE_BYTES
    max_image_pixels: int = defaults.MAX_IMAGE_PIXELS
    max_request_images: int = defaults.MAX_REQUEST_IMAGES
    max_request_bytes: int = defaults.MAX_REQUEST_BYTES
    max_request_pixels: int = defaults.MAX_REQUEST_PIXELS
    max_image_tokens: int | None = None  # images are resized to it; None: no ceiling

    @property
    def file(self) -> ByteLimit:
        """What one file may have."""
        return ByteLimit(
            most=self.max_image_bytes,
            error=lambda field, size, most: image_too_large(field, "bytes", size, most),
        )

    def check_count(self, images: int) -> None:
        """Compares a request's number of images with the limit.

        Raises:
            InvalidRequest: IMAGE_TOO_LARGE.
        """
        if images > self.max_request_images:
            raise InvalidRequest(
                f"messages hold {images} images, expected at most {self.max_request_images}",
                reason=Reason.IMAGE_TOO_LARGE,
                param="messages",
            )

    def check_total(self, size_bytes: int) -> None:
        """Compares the bytes of a request's image files with the limit.

        Raises:
            InvalidRequest: IMAGE_TOO_LARGE.
        """
        if size_bytes > self.max_request_bytes:
            most = self.max_request_bytes
            raise image_too_large("messages", "bytes in all images", size_bytes, most)

    def under(self, tiers: Iterable[TierLimits], *, merge_size: int) -> Self:
        """The lower of these limits and those of every vision tier.

        Args:
            tiers: What each tier says.
            merge_size: Patches along a token's side.
        """
        limits = self
        for tier in tiers:
            tokens = max(1, tier.max_image_patches // merge_size**2)
            limits = replace(
                limits,
                max_image_bytes=min(limits.max_image_bytes, tier.max_image_bytes),
                max_image_pixels=min(limits.max_image_pixels, tier.max_image_pixels),
                max_image_tokens=min(limits.max_image_tokens or tokens, tokens),
            )
        return limits


class ImageSource(NamedTuple):
    """One image of a request: its place there, its file, and the size it should get.

    A PDF's page, `is_page`, is of the vision tier's making, and counted with pages, not images.
    """

    field: str
    data: bytes
    sizing: ImageSizing = ImageSizing()
    is_page: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """One image of a request, planned but not decoded."""

    data: bytes
    field: str  # where the client put it, for errors
    header: ImageHeader
    areas: PixelRange  # what it is resized within
    grid: Grid
    token_count: int
    digest: bytes  # keyed BLAKE3 of file and grid, 32 bytes


def image_bytes(url: str, *, field: str, most: int | None = None) -> bytes:
    """The bytes in an image's `data:` URL in base64.

    The URL's media type is ignored: the bytes themselves say what they are.

    Args:
        url: What the client sent.
        field: Its place in the request, for errors.
        most: Largest file, bytes. None where the size of the whole request bounds it well enough
            until `plan_images` compares it with the limit.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, any other kind of URL; INVALID_IMAGE, not base64 or
            empty; IMAGE_TOO_LARGE, found before anything is decoded.
    """
    if url[:5].lower() != "data:":
        raise not_allowed(field)
    data = data_url_bytes(url, field=field, most=most)
    if most is not None:
        check_bytes(data, field=field, most=most)
    return data


def plan_images(
    sources: Sequence[ImageSource],
    settings: ImageSettings,
    *,
    limits: MediaLimits,
    digest_key: bytes,
) -> tuple[PlannedImage, ...]:
    """Checks all images of a request and plans their placeholders.

    Args:
        sources: The images, in prompt order.
        settings: The checkpoint's image settings.
        limits: What one request may bring.
        digest_key: 32 bytes; images have equal digests only under the same key.

    Raises:
        InvalidRequest: IMAGE_TOO_LARGE, INVALID_IMAGE or UNSUPPORTED_MEDIA, naming the field.
    """
    _check_counts(sources, limits)
    planned = []
    pixels = 0
    for field, data, sizing, is_page in sources:
        header = read_header(data, field=field, max_pixels=limits.max_image_pixels)
        pixels += 0 if is_page else header.width * header.height
        if pixels > limits.max_request_pixels:
            raise image_too_large(field, "pixels in all images", pixels, limits.max_request_pixels)
        areas, grid = planned_size(
            header, sizing, settings, most_tokens=limits.max_image_tokens, field=field
        )
        planned.append(
            PlannedImage(
                data=data,
                field=field,
                header=header,
                areas=areas,
                grid=grid,
                token_count=grid.tokens(settings.merge_size),
                digest=_digest(data, grid, digest_key),
            )
        )
    return tuple(planned)


def _digest(data: bytes, grid: Grid, key: bytes) -> bytes:
    """Names an image's features: they follow from the file and the size it is resized to."""
    size = b"".join(side.to_bytes(4, "little") for side in grid)
    return blake3(data, key=key).update(size).digest()


def _check_counts(sources: Sequence[ImageSource], limits: MediaLimits) -> None:
    sent = [source for source in sources if not source.is_page]
    limits.check_count(len(sent))
    for source in sources:
        check_bytes(source.data, field=source.field, most=limits.max_image_bytes)
    limits.check_total(sum(len(source.data) for source in sent))
