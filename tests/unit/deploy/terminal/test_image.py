"""Images drawn in the terminal."""

from pathlib import Path

from PIL import Image

from deploy.terminal.image import UPPER_HALF_BLOCK, half_blocks


def test_two_pixels_make_one_character_cell(tmp_path: Path) -> None:
    image = Image.new("RGB", (1, 2), "red")
    image.putpixel((0, 1), (0, 0, 255))
    image.save(tmp_path / "p.png")
    (cell, line) = half_blocks(tmp_path / "p.png", columns=10).segments
    assert (cell.text, line.text) == (UPPER_HALF_BLOCK, "\n")
    assert cell.style is not None
    assert cell.style.color is not None and cell.style.color.get_truecolor() == (255, 0, 0)
    assert cell.style.bgcolor is not None and cell.style.bgcolor.get_truecolor() == (0, 0, 255)


def test_wide_images_shrink_to_the_columns_and_keep_their_proportions(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200)).save(tmp_path / "p.png")
    segments = half_blocks(tmp_path / "p.png", columns=40).segments
    lines = "".join(segment.text for segment in segments).splitlines()
    assert {len(line) for line in lines} == {40}
    assert len(lines) == 10


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 2), (0, 0, 0, 0)).save(tmp_path / "p.png")
    cell = half_blocks(tmp_path / "p.png", columns=1).segments[0]
    assert cell.style is not None and cell.style.color is not None
    assert cell.style.color.get_truecolor() == (255, 255, 255)
