"""What errors about sizes say."""

from protos.media.limits import image_too_large, pdf_too_large, video_too_large
from protos.wire.errors import Reason


def test_counts_are_told_to_the_last_digit_and_measures_shortly() -> None:
    error = video_too_large("video", "bytes", 12_345_678_901, 2**33, setting="max_video_mib")
    assert error.message == (
        "video has 12345678901 bytes, expected at most 8589934592 (max_video_mib)"
    )
    error = video_too_large("video", "seconds", 100 / 3, 7.0, setting="max_video_seconds")
    assert error.message == "video has 33.33333333 seconds, expected at most 7 (max_video_seconds)"


def test_each_kind_of_file_has_a_reason_of_its_own() -> None:
    errors = [
        image_too_large("image", "pixels", 2, 1),
        video_too_large("image", "pixels", 2, 1, setting="x"),
        pdf_too_large("image", "pixels", 2, 1, setting="x"),
    ]
    assert [error.reason for error in errors] == [
        Reason.IMAGE_TOO_LARGE,
        Reason.VIDEO_TOO_LARGE,
        Reason.PDF_TOO_LARGE,
    ]
    assert all(error.param == "image" for error in errors)
