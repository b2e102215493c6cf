"""What a bundle's manifest says of its fast tower, for people."""

from collections.abc import Mapping
from typing import Any


def described(tower: Mapping[str, Any]) -> str:
    """Lines of its figures.

    Args:
        tower: `tower` of a manifest's quality, as `deploy.export.vision.loss.measured` makes it.
    """
    lines = [
        f"fast tower beside float32, {tower['tokens']} tokens of {tower['images']} images: cosine"
        " mean, first percentile, least"
    ]
    for index, level in enumerate(tower["levels"]):
        name = f"deepstack {index}" if index else "embeddings"
        figures = (level["mean"], level["first_percentile"], level["least"])
        lines.append(f"  {name:<12}" + "".join(f" {figure:8.5f}" for figure in figures))
    return "\n".join(lines)
