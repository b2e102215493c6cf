"""The time images may take grows with them, and what cannot be in time is refused at once."""

import time

import pytest

from gateway.tiers.pace import EncodePace
from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import about_images, staged

PLACE = "messages[0].content[1]"


def test_the_best_recent_pace_counts() -> None:
    known = EncodePace()
    assert known.patches_per_s() is None
    known.note(100, 0.0)
    assert known.patches_per_s() is None
    known.note(100, 1000.0)
    known.note(100, 500.0)
    known.note(100, 4000.0)
    assert known.patches_per_s() == 200


def test_a_slow_moment_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    known = EncodePace()
    known.note(100, 1000.0)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 301)
    assert known.patches_per_s() is None


async def test_the_deadline_of_an_encoding_grows_with_all_patches(bundle: Bundle) -> None:
    async with staged(bundle, encode_deadline_s=20.0, encode_patches_per_s=8.0) as stage:
        stage.will_say("Hi")
        await stage.post(messages=about_images((64, 64)))
        (left_s,) = stage.vision.time_left_s
        assert left_s is not None and abs(left_s - (20 + 256 / 8)) < 2
        await stage.post(messages=about_images((64, 64), (96, 64)))
        for left_s in stage.vision.time_left_s[1:]:
            assert left_s is not None and abs(left_s - (20 + (256 + 280) / 8)) < 2


async def test_an_image_that_cannot_be_in_time_is_refused_with_the_estimate(
    bundle: Bundle,
) -> None:
    async with staged(bundle) as stage:
        stage.will_say("Hi")
        stage.vision.encode_ms = 1e6  # 256 patches: one in four seconds
        assert (await stage.post(messages=about_images((64, 64)))).status_code == 200
        response = await stage.post(messages=about_images((64, 64)))
        assert response.status_code == 504
        error = response.json()["error"]
        assert error["param"] == PLACE
        for part in ("about 1000 s", "256 patches", "70 s left", "encode_deadline_s"):
            assert part in error["message"]
        assert len(stage.vision.requests) == 1


async def test_an_image_that_was_not_in_time_is_named(bundle: Bundle) -> None:
    async with staged(bundle, encode_deadline_s=0.1, encode_patches_per_s=1e6) as stage:
        stage.vision.hold = True
        response = await stage.post(messages=about_images((64, 64)))
        assert response.status_code == 504
        error = response.json()["error"]
        assert error["param"] == PLACE
        assert "256 patches" in error["message"] and "encode_deadline_s" in error["message"]


async def test_the_requests_own_deadline_names_the_image_too(bundle: Bundle) -> None:
    async with staged(bundle, request_deadline_s=0.5) as stage:
        stage.vision.hold = True
        response = await stage.post(messages=about_images((64, 64)))
        assert response.status_code == 504
        assert response.json()["error"]["param"] == PLACE


def test_patience_grows_with_patches_and_with_what_calls_took_beyond_them() -> None:
    known = EncodePace()
    assert known.patience_s(100) is None
    known.note_call(1000, ahead=1000, took_s=1.0, encode_ms=1000.0)
    quiet_s = known.patience_s(1000)
    assert quiet_s is not None and 4.0 <= quiet_s <= 6.0
    assert known.patience_s(2000) == pytest.approx(quiet_s + 3.0)
    known.note_call(1000, ahead=1000, took_s=21.0, encode_ms=1000.0)  # a busy machine
    assert known.patience_s(1000) == pytest.approx(quiet_s + 60.0)
