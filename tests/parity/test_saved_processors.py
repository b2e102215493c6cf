"""Processors as fine-tunes have them: saved by transformers 5, or with limits in pixels.

Each goes the way into a bundle, is read there as gateway and vision tier read it,
and compared with transformers' processor of the very same folder: grids equal, pixels to 2e-7.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.export.checkpoint import processor
from deploy.export.checkpoint.checkpoint import Checkpoint
from protos.media.images import SETTINGS_NAME, ImageSettings, grid_thw
from tests.support import bundles, torchvision_schemas
from vision_service.media.preprocess import to_patches

torchvision_schemas.install()
from transformers import AutoImageProcessor, AutoProcessor  # noqa: E402

TOLERANCE = 2e-7  # as in test_pixels.py
SIZES = ((300, 400), (48, 80), (40, 40), (700, 500), (3, 600))
SEPARATE = ("preprocessor_config.json", "video_preprocessor_config.json")


def resaved(name: str, folder: Path, **changes: int) -> Path:
    """A copy of a tiny checkpoint whose processor `save_pretrained` has written anew."""
    shutil.copytree(bundles.checkpoint(name), folder)
    loaded = AutoProcessor.from_pretrained(folder, **changes)
    for file in (*SEPARATE, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    loaded.save_pretrained(folder)
    return folder


def edited(name: str, folder: Path, *, size: bool, **limits: int) -> Path:
    """A copy whose image settings have `limits`, beside `size` or instead of it."""
    shutil.copytree(bundles.checkpoint(name), folder)
    file = folder / SEPARATE[0]
    raw = json.loads(file.read_text()) | limits
    if not size:
        del raw["size"]
    file.write_text(json.dumps(raw))
    return folder


def in_both_forms(name: str, folder: Path) -> Path:
    """The nested form with limits of its own beside the separate files."""
    resaved(name, folder, max_pixels=100000)
    shutil.copy(bundles.checkpoint(name) / SEPARATE[0], folder / SEPARATE[0])
    return folder


CASES: dict[str, Any] = {
    "saved by transformers 5": lambda folder: resaved("tied", folder),
    "saved, other patch and merge sizes": lambda folder: resaved("odd", folder),
    "saved with limits": lambda folder: resaved("tied", folder, min_pixels=2048, max_pixels=40000),
    "both forms": lambda folder: in_both_forms("tied", folder),
    "limits beside size": lambda folder: edited(
        "tied", folder, size=True, min_pixels=3136, max_pixels=50176
    ),
    "limits instead of size": lambda folder: edited(
        "tied", folder, size=False, min_pixels=3136, max_pixels=50176
    ),
    "the least alone beside size": lambda folder: edited(
        "untied", folder, size=True, min_pixels=30000
    ),
    "the most alone beside size": lambda folder: edited(
        "tied", folder, size=True, max_pixels=70000
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_grids_and_pixels_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    folder = CASES[case](tmp_path / "checkpoint")
    opened = Checkpoint.open(folder)
    processor.write(opened.processor_files, tmp_path / "processor")
    ours = ImageSettings.from_file(tmp_path / SETTINGS_NAME)
    theirs = AutoImageProcessor.from_pretrained(folder)
    for seed, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = theirs(images=[Image.fromarray(pixels)], return_tensors="pt")
        grid = grid_thw(height, width, ours)
        assert tuple(grid) == tuple(expected["image_grid_thw"][0].tolist())
        difference = to_patches(pixels, grid, ours) - expected["pixel_values"].numpy()
        assert np.abs(difference).max() <= TOLERANCE


def test_the_bundle_gets_the_nested_settings_as_files_of_their_own(tmp_path: Path) -> None:
    folder = resaved("tied", tmp_path / "checkpoint")
    nested = json.loads((folder / "processor_config.json").read_text())
    files = Checkpoint.open(folder).processor_files
    assert json.loads(files[SEPARATE[0]]) == nested["image_processor"]
    assert json.loads(files[SEPARATE[1]]) == nested["video_processor"]
    assert "processor_config.json" not in files
