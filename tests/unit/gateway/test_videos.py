"""Videos from the doors to both tiers: one choice of frames, pieces, spans and usage."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import InvalidRequest, Reason, Unavailable, from_rpc_error
from tests.support.prompts import png
from tests.unit.gateway.stage import Stage, staged, user

PART = "messages[0].content[0]"

pytestmark = pytest.mark.asyncio(loop_scope="module")


# 16 x 16 patches a frame: eight temporal patches fill one call.
FORTY: dict[str, Any] = {
    "nframes": 40,
    "min_pixels": 256 * 256,
    "total_pixels": 40 * 256 * 256,
}


def part(data: bytes = b"a video", **numbers: Any) -> dict[str, Any]:
    url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    return {"type": "video_url", "video_url": {"url": url}, **numbers}


def about(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]


async def test_what_was_chosen_is_what_is_encoded(stage: Stage) -> None:
    response = await stage.post(messages=about(part(nframes=5, total_pixels=5 * 64 * 64)))
    assert response.status_code == 200, response.text
    (sampling,) = stage.vision.samplings
    assert (sampling.file, sampling.frame_count) == (b"a video", 5)
    (call,) = stage.vision.requests
    assert list(call.video.frame_indices) == [0, 3, 6, 9, 12, 12]
    assert (call.video.file, call.expected_grid_thw.t) == (b"a video", 3)
    spans = stage.decoder.starts[0].visual_spans
    assert [span.length for span in spans] == [4, 4, 4]
    assert len({span.digest for span in spans}) == 3
    usage = response.json()["usage"]["prompt_tokens_details"]
    assert usage["video_tokens"] == 12


async def test_a_request_without_wishes_gets_the_checkpoints_sampling(stage: Stage) -> None:
    await stage.post(messages=about(part()))
    (sampling,) = stage.vision.samplings
    asked = (sampling.fps, sampling.min_frames, sampling.max_frames)
    assert asked == (2.0, 4, 768)
    assert not sampling.HasField("frame_count")


async def test_pieces_are_dealt_to_their_spans(stage: Stage) -> None:
    response = await stage.post(messages=about(part(**FORTY)))
    assert response.status_code == 200, response.text
    grids = [call.expected_grid_thw.t for call in stage.vision.requests]
    assert sorted(grids) == [4, 8, 8]
    spans = stage.decoder.starts[0].visual_spans
    assert [span.length for span in spans] == [64] * 20
    by_span: dict[int, list[int]] = {}
    for _, features in stage.decoder.features:
        if features.chunk.level == 0:
            rows = features.chunk.values.shape[0]
            by_span.setdefault(features.span_index, []).append(rows)
    assert {span: sum(rows) for span, rows in by_span.items()} == dict.fromkeys(range(20), 64)


async def test_of_a_known_video_only_the_missing_piece_is_encoded(stage: Stage) -> None:
    stage.decoder.cached_spans = frozenset(range(9))
    response = await stage.post(messages=about(part(b"another", **FORTY)))
    assert response.status_code == 200, response.text
    assert sorted(call.expected_grid_thw.t for call in stage.vision.requests) == [4, 8]
    assert {features.span_index for _, features in stage.decoder.features} == set(range(9, 20))


async def test_a_video_that_was_seen_before_is_not_sampled_again(stage: Stage) -> None:
    for question in ("What?", "Where?"):
        messages = about(part(b"the same", nframes=4))
        messages[0]["content"][1]["text"] = question
        assert (await stage.post(messages=messages)).status_code == 200
    assert len(stage.vision.samplings) == 1
    await stage.post(messages=about(part(b"the same", nframes=6)))
    assert len(stage.vision.samplings) == 2


async def test_frames_need_no_sampling(stage: Stage) -> None:
    images = [png(64, 64, colour=(at, 0, 0)) for at in range(3)]
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    response = await stage.post(messages=about({"type": "video", "video": urls, "fps": 1}))
    assert response.status_code == 200, response.text
    assert stage.vision.samplings == []
    (call,) = stage.vision.requests
    assert list(call.video.images) == [*images, images[2]]


async def test_a_call_that_a_dying_tier_did_not_answer_is_made_once_more(stage: Stage) -> None:
    stage.vision.failures = [Unavailable("dying")]
    response = await stage.post(messages=about(part(b"once more", nframes=4)))
    assert response.status_code == 200, response.text
    assert len(stage.vision.samplings) == 2


async def test_the_tiers_complaint_names_the_part(stage: Stage) -> None:
    error = InvalidRequest("video is empty", reason=Reason.INVALID_VIDEO, param="video")
    stage.vision.failures = [error]
    response = await stage.post(messages=about(part(b"bad")))
    found = response.json()["error"]
    assert (response.status_code, found["code"], found["param"]) == (400, "invalid_video", PART)


@pytest_asyncio.fixture(loop_scope="module")
async def modest(bundle: Bundle) -> AsyncIterator[Stage]:
    settings = {"max_video_mib": 0.001, "max_video_frames": 6, "max_video_tokens": 20}
    async with staged(bundle, **settings) as stage:
        stage.will_say("Hi")
        yield stage


async def test_a_video_is_resized_to_the_servers_ceilings(modest: Stage) -> None:
    response = await modest.post(messages=about(part(max_frames=700)))
    assert response.status_code == 200, response.text
    assert modest.vision.samplings[0].max_frames == 6
    assert response.json()["usage"]["prompt_tokens_details"]["video_tokens"] <= 20


BAD = [
    (about(part(bytes(2000))), Reason.VIDEO_TOO_LARGE, PART),
    (about(part(nframes=7)), Reason.VIDEO_TOO_LARGE, PART),
    (about(part(b"")), Reason.INVALID_VIDEO, PART),
    (about({"type": "video", "video": []}), Reason.INVALID_VIDEO, PART),
    (about(*[part()] * 5), Reason.VIDEO_TOO_LARGE, "messages"),
    (
        about({"type": "video", "video": ["data:image/png;base64,AAAA"] * 2}),
        Reason.UNSUPPORTED_MEDIA,
        PART,
    ),
]


@pytest.mark.parametrize(("messages", "reason", "param"), BAD)
async def test_what_is_too_much_is_refused_before_a_tier_is_asked(
    modest: Stage, messages: list[Any], reason: Reason, param: str
) -> None:
    response = await modest.post(messages=messages)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, reason.lower(), param)
    assert modest.vision.samplings == []
    assert modest.vision.requests == []


@pytest.mark.parametrize("seconds", [[0.0], [1.0, 0.5], [0.0, 1e9], [-1.0, 0.0]])
async def test_times_of_frames_are_checked(stage: Stage, seconds: list[float]) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(8, 8)).decode()}"
    video = {"type": "video", "video": [url, url], "timestamps": seconds}
    response = await stage.post(messages=about(video))
    assert response.json()["error"]["param"] == f"{PART}.timestamps"


async def test_the_grpc_door_takes_videos(stage: Stage) -> None:
    frames = [gateway_pb2.TimedImage(image=png(64, 64), seconds=at) for at in (0.0, 4.0)]
    videos = [
        gateway_pb2.Video(file=b"a video", frame_count=4, total_pixels=4 * 64 * 64),
        gateway_pb2.Video(frames=frames, max_pixels=64 * 64),
    ]
    parts = [gateway_pb2.ContentPart(video=video) for video in videos]
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=parts)
    prompt = await stage.grpc.Prepare(gateway_pb2.PrepareRequest(messages=[message]))
    assert [span.length for span in prompt.visual_spans] == [4, 4, 4]
    text = "".join(stage.tokenizer.token_of(token) or "" for token in prompt.input_ids)
    for seconds in ("0.2", "1.2", "2.0"):
        assert f"<{seconds}" in text.replace("Ġ", " ")
    assert np.prod(prompt.position_ids.shape) == 3 * len(prompt.input_ids)


@pytest.mark.parametrize(
    ("video", "param"),
    [
        (gateway_pb2.Video(), ".video"),
        (
            gateway_pb2.Video(file=b"x", frames=[gateway_pb2.TimedImage(image=b"y")]),
            ".video",
        ),
        (
            gateway_pb2.Video(
                frames=[
                    gateway_pb2.TimedImage(image=b"y"),
                    gateway_pb2.TimedImage(image=b"y", seconds=1),
                ]
            ),
            ".video.frames",
        ),
        (gateway_pb2.Video(file=b"x", fps=-1), ".video.fps"),
    ],
)
async def test_the_grpc_door_refuses_by_name(
    stage: Stage, video: gateway_pb2.Video, param: str
) -> None:
    content = [gateway_pb2.ContentPart(video=video)]
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=content)
    with pytest.raises(grpc.RpcError) as caught:
        await stage.grpc.Prepare(gateway_pb2.PrepareRequest(messages=[message]))
    assert from_rpc_error(caught.value).param == PART + param


async def test_text_alone_asks_no_tier_for_frames(stage: Stage) -> None:
    assert (await stage.post(messages=user())).status_code == 200
    assert stage.vision.samplings == []
