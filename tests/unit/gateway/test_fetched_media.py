"""Media by URL at both doors: fetched where it is allowed, and nothing before its turn."""

import base64
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import ANY

import grpc
import pytest

from protos.bundle.manifest import Bundle
from protos.media.limits import MAX_REQUEST_IMAGES
from protos.tandem.v1 import gateway_pb2
from tests.support.prompts import png
from tests.unit.gateway.media.media_server import MediaServer, file, media_server
from tests.unit.gateway.stage import Stage, staged

PNG = png(40, 24)
PART = "messages[0].content[0]"


@pytest.fixture
async def media() -> AsyncIterator[MediaServer]:
    async with media_server() as server:
        server.answers["/a.png"] = file(PNG)
        yield server


@pytest.fixture
async def fetching(bundle: Bundle, media: MediaServer) -> AsyncIterator[Stage]:
    """A gateway that follows the media server's URLs."""
    allowed = {"media_hosts": f"127.0.0.1:{media.port}", "media_networks": "127.0.0.0/8"}
    async with staged(bundle, **allowed, max_in_flight=2, max_in_flight_bytes=60_000) as stage:
        stage.will_say("Hi there")
        yield stage


def about(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What?"}, *parts]}]


async def test_an_image_by_url_is_the_image_itself(fetching: Stage, media: MediaServer) -> None:
    inline = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    for url in (media.url("/a.png"), inline):
        response = await fetching.post(messages=about(url, media.url("/a.png")))
        assert response.status_code == 200, response.text
    first, second = (start.input_ids for start in fetching.decoder.starts)
    assert first == second
    assert [request.image for request in fetching.vision.requests][:1] == [PNG]


async def test_the_grpc_door_takes_urls_too(fetching: Stage, media: MediaServer) -> None:
    def content(**part: Any) -> gateway_pb2.ChatMessage:
        parts = [gateway_pb2.ContentPart(text="What?"), gateway_pb2.ContentPart(**part)]
        return gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=parts)

    async def prepared(**part: Any) -> Any:
        return await fetching.grpc.Prepare(gateway_pb2.PrepareRequest(messages=[content(**part)]))

    by_url = await prepared(image_url=media.url("/a.png"))
    assert by_url == await prepared(image=PNG)
    assert by_url.visual_spans
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await prepared(image_url="http://169.254.169.254/latest")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "messages[0].content[1]" in (caught.value.details() or "")


async def test_a_gateway_fetches_nothing_by_default(bundle: Bundle, media: MediaServer) -> None:
    urls = (media.url("/a.png"), "file:///etc/passwd", "ftp://a/b", "http://[::1]/")
    async with staged(bundle) as stage:
        answers = [await stage.post(messages=about(url)) for url in urls]
        video = await stage.post(messages=asked(video_part("https://example.com/a.mp4")))
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "url_not_allowed"
    assert video.json()["error"] == answers[0].json()["error"] | {"param": PART, "message": ANY}
    assert media.connections == 0


async def test_too_many_images_are_refused_before_one_is_fetched(
    fetching: Stage, media: MediaServer
) -> None:
    urls = [media.url("/a.png")] * (MAX_REQUEST_IMAGES + 1)
    response = await fetching.post(messages=about(*urls))
    assert response.status_code == 400
    assert str(MAX_REQUEST_IMAGES) in response.json()["error"]["message"]
    assert media.connections == 0


async def test_a_bad_question_fetches_nothing(fetching: Stage, media: MediaServer) -> None:
    messages = about(media.url("/a.png"))
    for wrong in ({"top_p": 2}, {"model": "other"}, {"n": 99}, {"max_tokens": -1}):
        assert (await fetching.post(messages=messages, **wrong)).status_code in (400, 404)
    assert media.connections == 0


async def test_what_is_fetched_counts_as_at_work(fetching: Stage, media: MediaServer) -> None:
    media.answers["/large"] = file(bytes(61_000))
    response = await fetching.post(messages=about(media.url("/large")))
    assert response.status_code == 429
    assert (await fetching.post(messages=about(media.url("/a.png")))).status_code == 200
    admission = fetching.gateway._admission
    assert (admission.in_flight, admission.held_bytes) == (0, 0)


async def test_the_first_that_fails_is_named(fetching: Stage, media: MediaServer) -> None:
    media.answers["/page"] = file(b"<html>", "Content-Type: image/png")
    media.answers["/gone"] = file(b"", status="404 Gone")
    gone = await fetching.post(messages=about(media.url("/a.png"), media.url("/gone")))
    assert gone.json()["error"]["param"] == "messages[0].content[2]"
    assert gone.json()["error"]["code"] == "media_fetch_failed"
    page = await fetching.post(messages=about(media.url("/page")))
    assert page.json()["error"]["code"] in ("unsupported_media", "invalid_image")
    assert fetching.vision.requests == []


def video_part(url: str, **numbers: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}, **numbers}


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]


async def test_a_video_by_url_is_the_video_itself(fetching: Stage, media: MediaServer) -> None:
    media.answers["/a.mp4"] = file(b"a video")
    inline = f"data:video/mp4;base64,{base64.b64encode(b'a video').decode()}"
    for url in (media.url("/a.mp4"), inline):
        response = await fetching.post(messages=asked(video_part(url, nframes=4)))
        assert response.status_code == 200, response.text
    # The second is known to be the first, whose frames were chosen already.
    assert [sampling.file for sampling in fetching.vision.samplings] == [b"a video"]
    first, second = (start.input_ids for start in fetching.decoder.starts)
    assert first == second


async def test_the_grpc_door_takes_urls_of_videos(fetching: Stage, media: MediaServer) -> None:
    async def prepared(**video: Any) -> Any:
        part = gateway_pb2.ContentPart(video=gateway_pb2.Video(frame_count=4, **video))
        message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
        return await fetching.grpc.Prepare(gateway_pb2.PrepareRequest(messages=[message]))

    media.answers["/a.mp4"] = file(b"a video")
    inline = f"data:video/mp4;base64,{base64.b64encode(b'a video').decode()}"
    by_url = await prepared(url=media.url("/a.mp4"))
    assert by_url == await prepared(file=b"a video") == await prepared(url=inline)
    assert by_url.visual_spans
    for wrong in ({"url": "ftp://a/b"}, {"url": inline, "file": b"a video"}, {}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await prepared(**wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "messages[0].content[0]" in (caught.value.details() or "")


async def test_a_video_has_limits_of_its_own(bundle: Bundle, media: MediaServer) -> None:
    allowed = {"media_hosts": f"127.0.0.1:{media.port}", "media_networks": "127.0.0.0/8"}
    media.answers["/long.mp4"] = file(b"v" * 20_000)
    async with staged(bundle, **allowed, max_image_mib=0.001, max_video_mib=0.015) as stage:
        large = await stage.post(messages=asked(video_part(media.url("/long.mp4"))))
        many = await stage.post(messages=asked(*[video_part(media.url("/a.mp4"))] * 5))
        stage.will_say("Hi there")
        media.answers["/a.mp4"] = file(b"v" * 10_000)  # more than an image may have
        fits = await stage.post(messages=asked(video_part(media.url("/a.mp4"), nframes=4)))
    assert (large.status_code, large.json()["error"]["code"]) == (400, "video_too_large")
    assert "max_video_mib" in large.json()["error"]["message"]
    assert (many.status_code, many.json()["error"]["code"]) == (400, "video_too_large")
    assert fits.status_code == 200, fits.text
    assert media.connections == 2


async def test_times_are_of_frames_not_of_a_file(fetching: Stage, media: MediaServer) -> None:
    part = video_part(media.url("/a.mp4"), timestamps=[0.0, 1.0])
    response = await fetching.post(messages=asked(part))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[0].timestamps"
    assert media.connections == 0
