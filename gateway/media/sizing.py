"""How large an image may become: what its request asks for, under the server's ceiling."""

from dataclasses import dataclass
from enum import StrEnum

from protos.media.formats import ImageHeader
from protos.media.images import Grid, ImageSettings, PixelRange, grid_thw
from protos.wire.errors import InvalidRequest

LOW_DETAIL_TOKENS = 256
MAX_PIXELS_FIELD = (1 << 31) - 1  # far above any image; keeps numbers of clients small


class Detail(StrEnum):
    """OpenAI's `detail`; the values are its words.

    `LOW` is at most `LOW_DETAIL_TOKENS` tokens. `AUTO`, `HIGH` and `ORIGINAL` are all
    as large as the checkpoint and the server allow.
    """

    AUTO = "auto"
    LOW = "low"
    HIGH = "high"
    ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizing:
    """What a request asks for one image; areas in pixels after resizing, None as nobody asked."""

    detail: Detail = Detail.AUTO
    min_pixels: int | None = None
    max_pixels: int | None = None

    def check(self, *, field: str) -> None:
        """Checks both areas; `field` is the image's place in the request.

        Raises:
            InvalidRequest: an area out of range, or the smallest above the largest.
        """
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_PIXELS_FIELD:
                raise InvalidRequest(
                    f"{field}.{name} is {value}, expected 1 to {MAX_PIXELS_FIELD}",
                    param=f"{field}.{name}",
                )
        if self.max_pixels is not None and (self.min_pixels or 0) > self.max_pixels:
            raise InvalidRequest(
                f"{field}.min_pixels is {self.min_pixels}, expected at most max_pixels"
                f" ({self.max_pixels})",
                param=f"{field}.min_pixels",
            )


def planned_size(
    header: ImageHeader,
    sizing: ImageSizing,
    settings: ImageSettings,
    *,
    most_tokens: int | None,
    field: str,
) -> tuple[PixelRange, Grid]:
    """The areas an image is resized within, and the grid that follows.

    The least area gives way to the largest, from whichever side either comes.

    Args:
        header: The image's upright size.
        sizing: What its request asks for.
        settings: The checkpoint's, for what the request leaves open.
        most_tokens: The server's ceiling; None for none.
        field: Its place in the request, for errors.

    Raises:
        InvalidRequest: INVALID_IMAGE, the image is too long and thin.

    Source: transformers' processor with `size={"shortest_edge": min, "longest_edge": max}` of
    the returned areas; parity in tests/parity/test_prompt_sizes.py and test_pixels.py.
    """
    ceilings = [LOW_DETAIL_TOKENS] if sizing.detail is Detail.LOW else []
    if most_tokens is not None:
        ceilings.append(most_tokens)
    pixels_of_token = settings.factor**2
    asked = settings.max_pixels if sizing.max_pixels is None else sizing.max_pixels
    most = min([asked, *(tokens * pixels_of_token for tokens in ceilings)])
    least = min(settings.min_pixels if sizing.min_pixels is None else sizing.min_pixels, most)
    while True:
        areas = PixelRange(least, most)
        grid = grid_thw(header.height, header.width, settings.within(areas), field=field)
        tokens = grid.tokens(settings.merge_size)
        if least == 1 or all(tokens <= ceiling for ceiling in ceilings):
            return areas, grid
        # An image that is enlarged to the least area is rounded up, and long thin ones by much.
        least = max(1, least * min(ceilings) // tokens)
