"""Videos through the three services: transformers' tokens, and refusals that disturb nobody."""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire import tensors
from tests.support import video_oracle
from tests.support.bundles import bundle, checkpoint
from tests.support.oracle import Oracle, oracle
from tests.support.prompts import encoded
from tests.support.stack import ServedStack, Stacks
from tests.support.video_oracle import GivenVideo
from tests.support.videos import RgbArray, animation, moving, video_file

TOKENS = 24
TOLERANCE = 1e-3
LEAK = re.compile(r"Traceback|/[a-z]+/[a-z]+|0x[0-9a-f]{4}|BytesIO|Errno|ffmpeg|av\.|\.py\b")
PART = "messages[0].content[0]"


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def reference() -> Oracle:
    return oracle(checkpoint("tied"))


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.stack.http_url, timeout=60.0) as opened:
        yield opened


def url_of(data: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(client: httpx.Client, part: Any, **options: Any) -> httpx.Response:
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What moves?"}]}]
    body = {"messages": messages, "max_tokens": TOKENS, "temperature": 0, **options}
    return client.post("/chat/completions", json=body)


def expected(reference: Oracle, video: GivenVideo, **options: Any) -> video_oracle.PreparedVideos:
    content = [{"type": "video"}, {"type": "text", "text": "What moves?"}]
    messages = [{"role": "user", "content": content}]
    return video_oracle.prepare(reference, messages, [video], **options)


def request_of(video: gateway_pb2.Video) -> gateway_pb2.ChatRequest:
    parts = [gateway_pb2.ContentPart(video=video), gateway_pb2.ContentPart(text="What moves?")]
    return gateway_pb2.ChatRequest(
        messages=[gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=parts)],
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0, repetition_penalty=1.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=TOKENS, ignore_eos=True),
        report_options=decoder_pb2.ReportOptions(logits=True),
    )


@pytest.mark.parametrize("form", ["GIF", "frames"])
def test_greedy_tokens_and_their_logits_are_transformers(
    served: ServedStack, reference: Oracle, form: str
) -> None:
    frames = moving(9, 96, 64)
    if form == "GIF":
        video = gateway_pb2.Video(file=animation(as_gif(frames), "GIF", 250))
        known = GivenVideo(frames=as_gif(frames), fps=4.0)
    else:
        images = [encoded(Image.fromarray(frame), "PNG") for frame in frames]
        times = [0.5 * place for place in range(9)]
        timed = zip(images, times, strict=True)
        video = gateway_pb2.Video(
            frames=[gateway_pb2.TimedImage(image=image, seconds=at) for image, at in timed]
        )
        known = GivenVideo(frames=frames, fps=1.0, places=times)
    prepared = expected(reference, known)
    wanted = video_oracle.greedy(reference, prepared, TOKENS)
    chunks = list(served.chat.complete(request_of(video)))
    logits = np.concatenate(
        [
            tensors.float32_from_proto(chunk.logits, field="logits", shape=(None, None))
            for chunk in chunks
            if chunk.token_ids
        ]
    )
    assert [token for chunk in chunks for token in chunk.token_ids] == list(wanted.token_ids)
    assert np.abs(logits - wanted.logits).max() <= TOLERANCE
    end = chunks[-1].completion
    assert end.prompt_tokens == len(prepared.input_ids)
    assert end.video_tokens == int((prepared.mm_token_type_ids == 2).sum())


def as_gif(frames: Sequence[RgbArray]) -> list[RgbArray]:
    """The frames in few colours, which a GIF keeps as they are."""
    return [np.uint8(85) * (frame // 86) for frame in frames]


def test_a_prompt_of_a_file_is_the_processors(served: ServedStack, reference: Oracle) -> None:
    frames = moving(30, 96, 64)
    file = video_file(frames, rate=10, codec="mpeg4")
    request = gateway_pb2.PrepareRequest(
        messages=request_of(gateway_pb2.Video(file=file, fps=3.0)).messages
    )
    prompt = served.chat.prepare(request)
    wanted = expected(reference, GivenVideo(frames=frames, fps=10.0), fps=3.0)
    positions = tensors.int32_from_proto(
        prompt.position_ids, field="position_ids", shape=(3, len(prompt.input_ids))
    )
    assert list(prompt.input_ids) == wanted.input_ids.tolist()
    assert np.array_equal(positions, wanted.position_ids)
    assert prompt.position_delta == wanted.delta
    assert {grid.t for grid in prompt.grid_thw} == {1}
    assert len(prompt.grid_thw) == wanted.video_grid_thw[0, 0]


def test_clients_of_every_kind_send_videos(client: httpx.Client) -> None:
    frames = moving(8, 96, 64)
    file = url_of(video_file(frames, rate=4))
    stills = [url_of(encoded(Image.fromarray(frame), "JPEG"), "image/jpeg") for frame in frames]
    joined = ",".join(still.partition(",")[2] for still in stills)
    answers = [
        ask(client, {"type": "video_url", "video_url": {"url": file, "fps": 2}}, seed=1),
        ask(client, {"type": "video_url", "video_url": file, "max_frames": 4}, seed=1),
        ask(client, {"type": "video", "video": stills, "fps": 2.0}, seed=1),
        ask(
            client,
            {"type": "video_url", "video_url": f"data:video/jpeg;base64,{joined}", "fps": 2},
            seed=1,
        ),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    same = [answer.json()["choices"][0]["message"]["content"] for answer in answers[2:]]
    assert same[0] == same[1]
    usage = answers[0].json()["usage"]
    assert 0 < usage["prompt_tokens_details"]["video_tokens"] < usage["prompt_tokens"]


def test_a_second_question_about_a_video_finds_its_prefix(client: httpx.Client) -> None:
    part = {"type": "video_url", "video_url": url_of(video_file(moving(12, 64, 64), rate=4))}
    first = ask(client, part).json()["usage"]
    again = ask(client, part, max_tokens=2).json()["usage"]
    # What every video begins with may be known from another one, its features are not.
    assert first["prompt_tokens_details"]["cached_tokens"] < 0.4 * first["prompt_tokens"]
    assert again["prompt_tokens_details"]["cached_tokens"] > 0.8 * again["prompt_tokens"]


MP4 = video_file(moving(30, 96, 64), rate=10)
BAD: dict[str, tuple[bytes, str]] = {
    "no video": (b"hello", "unsupported_media"),
    "malformed header": (MP4[:200], "invalid_video"),
    "truncated stream": (MP4[: len(MP4) * 2 // 3], "invalid_video"),
    "broken samples": (MP4[:600] + bytes(len(MP4) - 600), "invalid_video"),
    "one frame": (video_file(moving(1, 32, 32), codec="mpeg4"), "invalid_video"),
    "unsupported codec": (
        video_file(moving(4, 64, 64), codec="ffv1", container="matroska"),
        "unsupported_media",
    ),
    "absurd rate": (
        video_file(moving(4, 64, 64), rate=50_000, codec="mpeg4"),
        "invalid_video",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_video_is_refused_by_its_place_and_nothing_else_is_disturbed(
    client: httpx.Client, case: str
) -> None:
    data, code = BAD[case]
    response = ask(client, {"type": "video_url", "video_url": {"url": url_of(data)}})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, PART), error
    assert not LEAK.search(error["message"])
    good = ask(client, {"type": "video_url", "video_url": {"url": url_of(MP4)}}, max_tokens=1)
    assert good.status_code == 200
