"""Draws the picture that `tandem demo` asks about, with code of its own.

    python -m tests.demo_model.picture deploy/demo/picture.png

It shares nothing with the drawer that made the training pictures, so that a right answer about
it means something.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 384, 320
SCALE = 3  # drawn larger and shrunk, for smooth edges
PAPER = (232, 236, 240)
INK = (24, 28, 40)


def sky() -> Image.Image:
    """A pale background that darkens a little towards the bottom."""
    column = Image.new("RGB", (1, HEIGHT * SCALE))
    for y in range(HEIGHT * SCALE):
        shade = 14 * y // (HEIGHT * SCALE)
        column.putpixel((0, y), (PAPER[0] - shade, PAPER[1] - shade, PAPER[2] - shade))
    return column.resize((WIDTH * SCALE, HEIGHT * SCALE))


def draw_picture() -> Image.Image:
    """A red circle, two blue squares, a green triangle and the number 4071."""
    image = sky()
    draw = ImageDraw.Draw(image)

    def scaled(*points: float) -> list[float]:
        return [point * SCALE for point in points]

    draw.ellipse(scaled(42, 10, 118, 86), fill=(214, 40, 40), outline=INK, width=2 * SCALE)
    draw.rectangle(scaled(266, 14, 334, 82), fill=(36, 84, 200))
    draw.rectangle(scaled(62, 238, 130, 306), fill=(36, 84, 200))
    draw.polygon(scaled(300, 234, 342, 308, 258, 308), fill=(38, 150, 66))
    font = ImageFont.load_default(120 * SCALE)
    draw.text((192 * SCALE, 160 * SCALE), "4071", fill=INK, font=font, anchor="mm")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    draw_picture().save(parser.parse_args().file, optimize=True)


if __name__ == "__main__":
    main()
