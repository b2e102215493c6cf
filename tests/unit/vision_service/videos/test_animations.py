"""GIF and animated WebP: every frame as Pillow composes it, and when browsers show it."""

import numpy as np
import pytest
from PIL import Image

from protos.media.videos import FrameSampling
from protos.wire.errors import InvalidRequest, Reason
from tests.support.prompts import encoded
from tests.support.videos import animation, moving
from vision_service.videos.animations import AnimationClip
from vision_service.videos.clip import ClipLimits
from vision_service.videos.opening import open_clip

LIMITS = ClipLimits()
COLOURS = [np.uint8(85) * (frame // 86) for frame in moving(6, 40, 30)]


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_frames_come_as_they_were_drawn(form: str) -> None:
    clip = open_clip(animation(COLOURS, form, 100), LIMITS)
    assert (clip.width, clip.height, clip.timing.fps) == (40, 30, 10.0)
    for place, pixels in zip([0, 2, 2, 5], clip.frames([0, 2, 2, 5]), strict=True):
        assert np.array_equal(pixels, COLOURS[place])


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_times_are_the_files_and_too_short_ones_are_as_in_browsers(form: str) -> None:
    clip = open_clip(animation(COLOURS, form, [500, 0, 500, 250, 250, 500]), LIMITS)
    seen = clip.timing.sampled(FrameSampling(frame_count=6), 40, 30)
    assert seen.seconds == pytest.approx([0.0, 0.5, 0.6, 1.1, 1.35, 1.6])


def test_transparency_is_flattened_on_white() -> None:
    frames = [Image.new("RGBA", (8, 8), (200, 0, 0, alpha)) for alpha in (255, 0)]
    data = encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50, lossless=True
    )
    red, clear = open_clip(data, LIMITS).frames([0, 1])
    assert red[0, 0].tolist() == [200, 0, 0]
    assert clear[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_a_still_image_is_no_video(form: str) -> None:
    clip = open_clip(encoded(Image.new("RGB", (8, 8)), form), LIMITS)
    with pytest.raises(InvalidRequest) as caught:
        clip.timing.sampled(FrameSampling(), 8, 8)
    assert caught.value.reason is Reason.INVALID_VIDEO


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_a_truncated_animation_is_refused(form: str) -> None:
    data = animation(moving(6, 40, 30), form, 100)
    with pytest.raises(InvalidRequest) as caught:
        clip = open_clip(data[: len(data) * 2 // 3], LIMITS)
        list(clip.frames(range(6)))
    assert caught.value.reason in (Reason.INVALID_VIDEO, Reason.INVALID_IMAGE)
    assert caught.value.param == "video"


def test_a_huge_canvas_is_refused_by_its_header() -> None:
    data = bytearray(animation(COLOURS, "GIF", 100))
    data[6:10] = b"\xff\xff\xff\xff"
    with pytest.raises(InvalidRequest) as caught:
        AnimationClip(bytes(data), LIMITS)
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE
