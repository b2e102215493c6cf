"""One marker per image becomes that image's placeholders."""

import pytest

from gateway.prompt.splice import Frames, VisualSpan, splice
from protos.wire.errors import InvalidRequest, Reason

IMAGE, VIDEO = 90, 91


def test_markers_become_placeholders_and_spans() -> None:
    prompt = splice([1, 90, 2, 90, 3], [3, 1], [b"a", b"b"], image_id=IMAGE, video_id=VIDEO)
    assert prompt.input_ids.tolist() == [1, 90, 90, 90, 2, 90, 3]
    assert prompt.spans == (
        VisualSpan(offset=1, length=3, digest=b"a"),
        VisualSpan(offset=5, length=1, digest=b"b"),
    )


def test_neighbouring_images_keep_spans_of_their_own() -> None:
    prompt = splice([90, 90], [2, 3], [b"a", b"b"], image_id=IMAGE, video_id=VIDEO)
    assert [(span.offset, span.length) for span in prompt.spans] == [(0, 2), (2, 3)]


def test_text_alone_stays_as_it_is() -> None:
    prompt = splice([1, 2, 3], [], [], image_id=IMAGE, video_id=VIDEO)
    assert (prompt.input_ids.tolist(), prompt.spans) == ([1, 2, 3], ())


@pytest.mark.parametrize(("ids", "lengths"), [([1, 90], []), ([1], [4]), ([90], [4, 4])])
def test_a_image_without_a_place_is_refused(ids: list[int], lengths: list[int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        splice(ids, lengths, [b""] * len(lengths), image_id=IMAGE, video_id=VIDEO)
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_PARAMETER, "messages")


def test_a_place_for_a_video_that_nobody_sent_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        splice([1, 91], [], [], image_id=IMAGE, video_id=VIDEO)
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_PARAMETER, "messages")


def test_images_and_temporal_patches_are_told_apart_in_any_order() -> None:
    frames = [Frames(2, b"f"), Frames(2, b"g")]
    ids = [91, 1, 90, 91, 2, 90]
    prompt = splice(ids, [3, 1], [b"a", b"b"], image_id=IMAGE, video_id=VIDEO, frames=frames)
    assert prompt.input_ids.tolist() == [91, 91, 1, 90, 90, 90, 91, 91, 2, 90]
    assert [(span.offset, span.length, span.digest) for span in prompt.spans] == [
        (0, 2, b"f"),
        (3, 3, b"a"),
        (6, 2, b"g"),
        (9, 1, b"b"),
    ]
    assert prompt.order == (2, 0, 3, 1)
