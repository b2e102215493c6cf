"""Image settings come from the checkpoint's file alone; what it lacks is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from protos.bundle.manifest import BundleError
from protos.media.images import ImageSettings
from tests.support.manifests import small_manifest

FILE: dict[str, Any] = {
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.25, 0.5],
}
TOWER = small_manifest().vision


def fault(raw: dict[str, Any]) -> str:
    with pytest.raises(BundleError) as caught:
        ImageSettings.from_mapping(raw)
    return str(caught.value)


def test_the_published_form_is_read() -> None:
    settings = ImageSettings.from_mapping(FILE)
    assert (settings.min_pixels, settings.max_pixels) == (65536, 16777216)
    assert (settings.factor, settings.temporal_patch_size) == (32, 2)
    assert settings.image_std == (0.5, 0.25, 0.5)
    assert settings.rescale_factor == 1 / 255


def test_spelled_out_steps_and_older_area_names_are_read() -> None:
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}
    older = {"resample": 3, "rescale_factor": 0.5, "min_pixels": 1024, "max_pixels": 2048}
    settings = ImageSettings.from_mapping({**FILE, **steps, **older, "do_pad": None})
    assert (settings.min_pixels, settings.max_pixels) == (1024, 2048)
    assert settings.rescale_factor == 0.5


def test_areas_under_their_older_names_stand_in_for_size() -> None:
    older = {key: value for key, value in FILE.items() if key != "size"}
    settings = ImageSettings.from_mapping({**older, "min_pixels": 1024, "max_pixels": 2048})
    assert (settings.min_pixels, settings.max_pixels) == (1024, 2048)
    for alone in ({"min_pixels": 1024}, {"max_pixels": 2048}):
        assert "lacks size" in fault({**older, **alone})  # never a class default for the other


@pytest.mark.parametrize("key", FILE)
def test_a_missing_key_is_named(key: str) -> None:
    assert f"lacks {key}" in fault({name: value for name, value in FILE.items() if name != key})
    assert f"lacks {key}" in fault({**FILE, key: None})


@pytest.mark.parametrize("key", ["shortest_edge", "longest_edge"])
def test_a_missing_area_is_named(key: str) -> None:
    size = {name: value for name, value in FILE["size"].items() if name != key}
    assert f"lacks size.{key}" in fault({**FILE, "size": size})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 224),
        ("size", {"shortest_edge": 10, "longest_edge": 9}),
        ("size", {"shortest_edge": 0, "longest_edge": 9}),
        ("patch_size", 0),
        ("patch_size", "16"),
        ("merge_size", True),
        ("temporal_patch_size", 2.0),
        ("image_mean", [0.5]),
        ("image_mean", [0.5, 0.5, float("nan")]),
        ("image_std", [0.5, 0, 0.5]),
        ("image_std", 0.5),
        ("rescale_factor", "1"),
        ("do_resize", False),
        ("do_rescale", False),
        ("do_normalize", False),
        ("do_convert_rgb", False),
        ("resample", 2),
    ],
)
def test_a_malformed_value_is_named(key: str, value: Any) -> None:
    message = fault({**FILE, key: value})
    assert key in message or "area" in message


def test_settings_of_another_tower_are_refused() -> None:
    ImageSettings.from_mapping(FILE).check_against(TOWER)
    with pytest.raises(BundleError, match="merge_size is 3"):
        ImageSettings.from_mapping({**FILE, "merge_size": 3}).check_against(TOWER)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "preprocessor_config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BundleError, match="preprocessor_config.json"):
        ImageSettings.from_file(file)
    file.write_text(json.dumps(FILE))
    assert ImageSettings.from_file(file).patch_size == 16
