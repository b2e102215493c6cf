"""An image in the terminal, two pixels per character cell."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError
from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

from deploy.terminal.screen import CommandError

UPPER_HALF_BLOCK = "▀"  # its foreground is the upper pixel, its background the lower one


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        CommandError: no such file, or not an image.
    """
    try:
        data = path.read_bytes()
        with Image.open(path):
            return data
    except UnidentifiedImageError as error:
        raise CommandError(f"{path} is not an image", exit_code=2) from error
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", exit_code=2) from error


def half_blocks(path: Path, *, columns: int) -> Segments:
    """Draws an image `columns` characters wide, keeping its proportions."""
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGBA")
    flat = Image.new("RGB", upright.size, "white")
    flat.paste(upright, mask=upright.getchannel("A"))
    columns = min(columns, flat.width)
    rows = max(1, round(flat.height * columns / flat.width / 2))
    small = flat.resize((columns, rows * 2), Image.Resampling.LANCZOS)
    return Segments(_segments(small))


def _segments(image: Image.Image) -> list[Segment]:
    segments = []
    for top in range(0, image.height, 2):
        for column in range(image.width):
            upper, lower = (_colour(image, column, row) for row in (top, top + 1))
            segments.append(Segment(UPPER_HALF_BLOCK, Style(color=upper, bgcolor=lower)))
        segments.append(Segment.line())
    return segments


def _colour(image: Image.Image, column: int, row: int) -> Color:
    red, green, blue = image.getpixel((column, row))  # type: ignore[misc]
    return Color.from_rgb(red, green, blue)
