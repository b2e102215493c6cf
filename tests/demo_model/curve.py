"""Draws the learning curves of a training run.

python -m tests.demo_model.curve FOLDER deploy/demo/curve.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tests.demo_model.held_out import SKILLS

WIDTH, HEIGHT, MARGIN = 1100, 360, 44
PALETTE = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#b6992d", "#b07aa1", "#d37295",
    "#9c755f", "#79706e", "#1f3b73", "#8cd17d", "#a0522d", "#000000", "#ff9da7",
)  # fmt: skip
LEGEND = 130  # pixels on the right
Row = dict[str, float]


def read_log(file: Path) -> list[Row]:
    """Rows of a log by step; a resumed run's later rows replace earlier ones."""
    rows: dict[float, Row] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        rows = {step: kept for step, kept in rows.items() if step < row["step"]}
        rows[row["step"]] = row
    return list(rows.values())


def panel(title: str, rows: Sequence[Row], keys: Sequence[str], top: float) -> Image.Image:
    """One chart: each key a line from zero to `top`, over steps."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    right, bottom = WIDTH - LEGEND, HEIGHT - MARGIN
    last = max(row["step"] for row in rows)
    draw.text((MARGIN, 12), title, fill="black", font=font)
    for tenth in range(0, 11, 2):
        y = bottom - (bottom - MARGIN) * tenth / 10
        draw.line((MARGIN, y, right, y), fill="#dddddd")
        draw.text((6, y - 8), f"{top * tenth / 10:.1f}", fill="black", font=font)
    draw.text((right - 80, bottom + 12), f"step {last:.0f}", fill="black", font=font)
    for i, key in enumerate(keys):
        color = PALETTE[i % len(PALETTE)]
        points = [
            (
                MARGIN + (right - MARGIN) * row["step"] / last,
                bottom - (bottom - MARGIN) * min(row[key], top) / top,
            )
            for row in rows
            if key in row
        ]
        draw.line(points, fill=color, width=2)
        draw.text((right + 10, MARGIN + 19 * i), key.replace("sight_", ""), fill=color, font=font)
    return image


def draw_curves(folder: Path) -> Image.Image:
    """All lessons: loss and accuracy on pictures drawn for that step only."""
    sight, words, answers = (
        read_log(folder / f"{name}.jsonl") for name in ("sight", "words", "answers")
    )
    heads = [key for key in sight[-1] if key not in ("step", "seconds", "loss")]
    panels = (
        panel("Sight: loss of the dense labels", sight, ["loss"], 80),
        panel("Sight: dense labels right, where there is something", sight, heads, 1),
        panel("Words: loss", words, ["loss"], 3),
        panel("Words: answers right in every token, by skill", words, SKILLS, 1),
        panel("Answers: loss", answers, ["loss"], 3),
        panel("Answers: answers right in every token, by skill", answers, SKILLS, 1),
    )
    sheet = Image.new("RGB", (WIDTH, HEIGHT * len(panels)))
    for i, chart in enumerate(panels):
        sheet.paste(chart, (0, i * HEIGHT))
    return sheet.quantize(32)


def main() -> None:
    """Writes the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    draw_curves(arguments.folder).save(arguments.file, optimize=True)


if __name__ == "__main__":
    main()
