"""Video parts as clients send them, and what of them is refused by name."""

import base64
from typing import Any

import pytest

from gateway.http.chat.videos import video_part
from gateway.media.videos import VideoSizing
from gateway.request.conversation import VideoPart
from protos.wire.errors import InvalidRequest, Reason
from tests.support.prompts import png

PATH = "messages[0].content[1]"
FILE, PNG = b"a video", png(8, 8)


def url(data: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read(**part: Any) -> VideoPart:
    return video_part(part, PATH, idle=frozenset({"id"}))


def refusal(**part: Any) -> tuple[Reason, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        read(**part)
    return caught.value.reason, caught.value.param


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": url(FILE)}},
        {"type": "video_url", "video_url": url(FILE), "id": "x", "fps": None},
        {"type": "video_url", "video_url": {"url": url(FILE), "format": "mp4", "detail": "high"}},
        {"type": "video", "video": url(FILE)},
        {"type": "video", "video": {"url": url(FILE)}},
    ],
)
def test_a_file_comes_in_every_form_that_clients_send(part: dict[str, Any]) -> None:
    assert read(**part) == VideoPart(file=FILE)


def test_frames_come_as_a_list_or_joined_by_commas() -> None:
    frames = (PNG, png(8, 8, colour=(1, 2, 3)))
    urls = [url(frame, "image/png") for frame in frames]
    assert read(type="video", video=urls) == VideoPart(frames=frames)
    assert read(type="video", video=[{"url": url} for url in urls]) == VideoPart(frames=frames)
    joined = "data:video/jpeg;base64," + ",".join(one.partition(",")[2] for one in urls)
    assert read(type="video_url", video_url={"url": joined}) == VideoPart(frames=frames)
    timed = read(type="video", video=urls, timestamps=[0, 1.5])
    assert timed.seconds == (0.0, 1.5)


def test_numbers_have_the_names_of_qwens_clients_and_both_places() -> None:
    wanted = VideoSizing(
        fps=1.5,
        min_frames=2,
        max_frames=9,
        frame_count=4,
        min_pixels=1024,
        max_pixels=2048,
        total_pixels=8192,
    )
    numbers: dict[str, Any] = {
        "fps": 1.5,
        "min_frames": 2,
        "max_frames": 9,
        "nframes": 4,
        "min_pixels": 1024,
        "max_pixels": 2048,
        "total_pixels": 8192,
    }
    assert read(type="video", video=url(FILE), **numbers).sizing == wanted
    assert read(type="video_url", video_url={"url": url(FILE), **numbers}).sizing == wanted
    assert read(type="video", video=url(FILE), sample_fps=2, num_frames=3).sizing == VideoSizing(
        fps=2, frame_count=3
    )


BAD: list[tuple[dict[str, Any], Reason, str | None]] = [
    ({"video_url": {}}, Reason.INVALID_PARAMETER, ""),
    ({"video_url": [url(FILE)]}, Reason.INVALID_PARAMETER, ""),
    ({"video_url": {"url": "ftp://example.com/a.mp4"}}, Reason.URL_NOT_ALLOWED, ""),
    ({"video_url": {"url": "data:video/mp4;base64,%%"}}, Reason.INVALID_VIDEO, ""),
    ({"video_url": {"url": "data:video/mp4,abc"}}, Reason.INVALID_VIDEO, ""),
    ({"video_url": {"url": url(FILE), "speed": 2}}, Reason.INVALID_PARAMETER, ".video_url.speed"),
    ({"video_url": url(FILE), "speed": 2}, Reason.INVALID_PARAMETER, ".speed"),
    ({"video_url": {"url": url(FILE), "fps": 2}, "fps": 1}, Reason.INVALID_PARAMETER, ".fps"),
    ({"video_url": url(FILE), "fps": "2"}, Reason.INVALID_PARAMETER, ".fps"),
    ({"video_url": url(FILE), "fps": 0}, Reason.INVALID_PARAMETER, ".fps"),
    ({"video_url": url(FILE), "fps": 1e9}, Reason.INVALID_PARAMETER, ".fps"),
    ({"video_url": url(FILE), "fps": float("nan")}, Reason.INVALID_PARAMETER, ".fps"),
    ({"video_url": url(FILE), "nframes": 2.5}, Reason.INVALID_PARAMETER, ".nframes"),
    ({"video_url": url(FILE), "nframes": 1}, Reason.INVALID_PARAMETER, ".frame_count"),
    ({"video_url": url(FILE), "nframes": 4, "num_frames": 5}, Reason.INVALID_PARAMETER, None),
    ({"video_url": url(FILE), "min_frames": 9, "max_frames": 8}, Reason.INVALID_PARAMETER, None),
    ({"video_url": url(FILE), "max_pixels": True}, Reason.INVALID_PARAMETER, ".max_pixels"),
    ({"video_url": url(FILE), "timestamps": [0]}, Reason.INVALID_PARAMETER, ".timestamps"),
    ({"video_url": url(FILE), "timestamps": "01"}, Reason.INVALID_PARAMETER, ".timestamps"),
    ({"video_url": url(FILE), "timestamps": ""}, Reason.INVALID_PARAMETER, ".timestamps"),
    ({"video_url": url(FILE), "timestamps": [10**400]}, Reason.INVALID_PARAMETER, ".timestamps"),
]


@pytest.mark.parametrize(("part", "reason", "param"), BAD)
def test_what_cannot_be_meant_is_refused_by_name(
    part: dict[str, Any], reason: Reason, param: str | None
) -> None:
    found, named = refusal(type="video_url", **part)
    assert found is reason
    assert named is not None and named.startswith(PATH)
    assert param is None or named == PATH + param


@pytest.mark.parametrize("video", [[], 7, [7], [{}], ["https://example.com/a.png"]])
def test_a_list_of_frames_holds_images(video: Any) -> None:
    if video == []:
        assert read(type="video", video=video) == VideoPart()  # refused as empty, see below
        return
    _, param = refusal(type="video", video=video)
    assert param == PATH
