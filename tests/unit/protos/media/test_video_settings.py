"""A checkpoint's video settings: what is read, what has a default, what is refused."""

from dataclasses import asdict
from typing import Any

import pytest

from protos.bundle.manifest import BundleError
from protos.media.images import PixelRange
from protos.media.videos import FrameSampling, VideoSettings, pair_seconds, sample_indices

RAW: dict[str, Any] = {
    "size": {"shortest_edge": 4096, "longest_edge": 25_165_824},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def test_a_published_file_leaves_sampling_to_the_class() -> None:
    settings = VideoSettings.from_mapping(RAW)
    assert settings.sampling == FrameSampling(2.0, 4, 768, None)
    assert settings.areas(8) == PixelRange(4096, 25_165_824)
    assert VideoSettings.from_plain(asdict(settings)) == settings


def test_areas_beside_size_have_no_effect() -> None:
    settings = VideoSettings.from_mapping({**RAW, "min_pixels": 1, "max_pixels": 2})
    assert settings.areas(8) == PixelRange(4096, 25_165_824)


def test_a_cap_of_each_frame_bounds_the_whole() -> None:
    settings = VideoSettings.from_mapping({**RAW, "cap_pixels_per_frame": True})
    assert settings.areas(8).max_pixels == 8 * 768 * 1024
    assert settings.areas(700).max_pixels == 700 * (25_165_824 // 700)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": None}, "size"),
        ({"patch_size": None}, "patch_size"),
        ({"temporal_patch_size": 1}, "temporal_patch_size"),
        ({"do_sample_frames": False}, "do_sample_frames"),
        ({"num_frames": 8}, "num_frames"),
        ({"do_normalize": False}, "do_normalize"),
        ({"fps": 0}, "fps"),
        ({"min_frames": "4"}, "min_frames"),
    ],
)
def test_what_cannot_be_done_is_refused_by_key_and_file(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BundleError) as caught:
        VideoSettings.from_mapping({**RAW, **change})
    assert named in str(caught.value)
    assert "video_preprocessor_config.json" in str(caught.value)


def test_an_odd_last_frame_is_paired_with_itself() -> None:
    assert pair_seconds([0.0, 0.5, 1.0]) == [0.25, 1.0]
    assert sample_indices(5, 1.0, FrameSampling(frame_count=3)) == [0, 2, 4]
