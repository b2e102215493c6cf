"""One set of image limits: the lower of the gateway's and the tiers', told and applied."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, about_images, staged


@pytest.fixture
async def modest(bundle: Bundle) -> AsyncIterator[Stage]:
    """A gateway with limits of its own."""
    settings = {"max_image_pixels": 80_000_000, "max_image_mib": 2.0, "max_image_tokens": 300}
    async with staged(bundle, **settings) as stage:
        stage.will_say("Hi")
        yield stage


async def limits_of(stage: Stage) -> dict[str, Any]:
    card: dict[str, Any] = (await stage.http.get("/v1/models")).json()["data"][0]
    limits: dict[str, Any] = card["image_limits"]
    return limits


async def test_the_model_object_says_what_is_taken(modest: Stage) -> None:
    card = (await modest.http.get("/v1/models/test")).json()
    assert (await modest.http.get("/v1/models")).json()["data"] == [card]
    assert card["context_length"] == 4096
    assert card["input_modalities"] == ["text", "image", "video"]
    assert card["output_modalities"] == ["text"]
    assert card["image_limits"] == {
        "formats": ["PNG", "JPEG", "WEBP", "GIF", "BMP"],
        "max_images": 16,
        "max_bytes": 2 << 20,
        "max_pixels": 65_000_000,  # the vision tier's
        "max_tokens": 300,
        "default_max_tokens": 300,
        "low_detail_tokens": 256,
        "pixels_per_token": 1024,
    }
    assert card["video_limits"] == {
        "formats": ["MP4", "WEBM", "MKV", "GIF", "WEBP"],
        "max_videos": 4,
        "max_bytes": 48 << 20,
        "max_seconds": 10_800.0,
        "max_frames": 768,
        "max_tokens": 2560,
        "default_fps": 2.0,
    }


async def test_an_image_is_resized_to_the_ceiling_and_not_refused(modest: Stage) -> None:
    response = await modest.post(messages=about_images((3000, 2000)))
    assert response.status_code == 200, response.text
    (call,) = modest.vision.requests
    assert call.max_pixels == 300 * 1024
    tokens = call.expected_grid_thw.h * call.expected_grid_thw.w // 4
    assert 270 < tokens <= 300


async def test_a_tiers_lower_limits_take_effect_when_it_tells_them(
    modest: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.tiers.tier")
    modest.vision.max_image_pixels = 10_000
    modest.vision.max_image_bytes = 99_999
    modest.vision.max_image_patches = 160
    for _ in range(500):
        if (await limits_of(modest))["max_tokens"] == 40:
            break
        await asyncio.sleep(0.02)
    limits = await limits_of(modest)
    assert (limits["max_pixels"], limits["max_bytes"]) == (10_000, 99_999)
    assert "at most 99999 bytes, 10000 pixels, 160 patches" in caplog.text

    response = await modest.post(messages=about_images((101, 100)))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "messages[0].content[1]"
    assert "10000" in error["message"] and "max_image_pixels" in error["message"]
    assert modest.vision.requests == []

    response = await modest.post(messages=about_images((100, 100)))
    assert response.status_code == 200, response.text
    assert modest.decoder.starts[0].visual_spans[0].length <= 40


async def test_the_limits_are_logged_at_the_start(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.app")
    async with staged(bundle):
        assert "'max_tokens': 1280" in caplog.text
