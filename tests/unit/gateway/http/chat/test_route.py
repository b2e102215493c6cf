"""Answers through the HTTP door, whole and streamed."""

import json

import pytest

from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from tests.unit.gateway.stage import GENERATION, Stage, about_images, image_part, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_answer_comes_whole(stage: Stage) -> None:
    tokens = stage.will_say("Hi there, how are you?")
    answer = await stage.openai.chat.completions.create(model="test", messages=user())
    assert answer.choices[0].message.content == "Hi there, how are you?"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.model == "test"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(tokens) + 1
    assert answer.usage.prompt_tokens == len(stage.decoder.starts[0].input_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(tokens) + 1


async def test_an_answer_streams_token_by_token(stage: Stage) -> None:
    tokens = stage.will_say("Hi there, how are you?")
    stream = await stage.openai.chat.completions.create(
        model="test",
        messages=user(),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "Hi there, how are you?"
    assert len([text for text in texts if text]) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(tokens) + 1
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_ends_with_done_and_has_usage_only_when_asked(stage: Stage) -> None:
    response = await stage.post(messages=user(), stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert '"finish_reason":"stop"' in lines[-2]
    assert "usage" not in response.text


async def test_a_stream_with_usage_says_in_every_other_chunk_that_it_is_to_come(
    stage: Stage,
) -> None:
    options = {"include_usage": True}
    response = await stage.post(messages=user(), stream=True, stream_options=options, n=2)
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[-1]["choices"] == []


async def test_the_length_limit_shows_as_finish_reason(stage: Stage) -> None:
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    answer = await stage.openai.chat.completions.create(
        model="test", messages=user(), max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length"
    assert stage.decoder.starts[0].stop_conditions.max_tokens == 3


async def test_features_of_every_image_reach_the_decoder(stage: Stage) -> None:
    response = await stage.post(messages=about_images((64, 64), (96, 64)))
    assert response.status_code == 200
    start = stage.decoder.starts[0]
    assert [span.length for span in start.visual_spans] == [64, 70]
    assert {message.span_index for _, message in stage.decoder.features} == {0, 1}
    assert all(message.chunk.crc32 == 7 for _, message in stage.decoder.features)
    assert {request.bundle_digest for request in stage.vision.requests} == {stage.bundle.digest}
    expected = [request.expected_grid_thw for request in stage.vision.requests]
    grids = {(grid.h, grid.w) for grid in expected}
    assert grids == {(16, 16), (14, 20)}


async def test_detail_and_areas_of_each_image_reach_the_vision_tier(stage: Stage) -> None:
    low, small, plain = image_part(1000, 800), image_part(1000, 800), image_part(320, 256)
    low["image_url"]["detail"] = "low"
    small |= {"min_pixels": 1024, "max_pixels": 50_176}
    messages = [{"role": "user", "content": [low, small, plain]}]
    response = await stage.post(messages=messages)
    assert response.status_code == 200, response.text
    spans = stage.decoder.starts[0].visual_spans
    assert [span.length for span in spans] == [14 * 17, 6 * 7, 8 * 10]
    asked = {(call.expected_grid_thw.h, call.max_pixels) for call in stage.vision.requests}
    assert {(28, 256 * 1024), (12, 50_176)} < asked
    assert len({span.digest for span in spans}) == 3


async def test_a_image_the_decoder_has_cached_is_not_encoded(stage: Stage) -> None:
    stage.decoder.cached_spans = frozenset({0})
    stage.decoder.cached_tokens = 5
    response = await stage.post(messages=about_images((64, 64), (96, 64)))
    assert len(stage.vision.requests) == 1
    assert response.json()["usage"]["prompt_tokens_details"] == {
        "cached_tokens": 5,
        "image_tokens": 64 + 70,
    }


async def test_images_in_several_turns_and_tool_messages_are_sent(stage: Stage) -> None:
    messages = [
        *about_images((64, 64)),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": [image_part(96, 64)]},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    response = await stage.post(messages=messages, tools=[tool], tool_choice="auto")
    assert response.status_code == 200, response.text
    assert len(stage.vision.requests) == 2


async def test_a_bare_url_string_is_a_image_too(stage: Stage) -> None:
    part = image_part()
    part["image_url"] = part["image_url"]["url"]
    response = await stage.post(messages=[{"role": "user", "content": [part]}])
    assert response.status_code == 200, response.text


async def test_a_stop_string_ends_the_answer_and_cancels_the_decoder(stage: Stage) -> None:
    stage.will_say("one two END three four")
    response = await stage.post(messages=user(), stop=["END"])
    choice = response.json()["choices"][0]
    assert choice["message"]["content"] == "one two "
    assert choice["finish_reason"] == "stop"
    assert response.json()["usage"]["completion_tokens"] < len(stage.decoder.tokens)


async def test_a_stalled_decoder_is_cancelled_after_a_stop_string(stage: Stage) -> None:
    tokens = stage.will_say("one END")
    stage.decoder.stall_after = len(tokens)
    response = await stage.post(messages=user(), stop="END")
    assert response.json()["choices"][0]["message"]["content"] == "one "
    await stage.decoder.cancelled.wait()


async def test_several_choices_come_back_and_share_one_encoding(stage: Stage) -> None:
    response = await stage.post(messages=about_images((64, 64)), n=3, seed=5)
    answer = response.json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(stage.decoder.starts) == 3
    assert len({start.request_id for start in stage.decoder.starts}) == 3
    seeds = sorted(start.sampling_params.seed for start in stage.decoder.starts)
    assert seeds == [5, 6, 7]
    assert len(stage.vision.requests) == 1
    one = len(stage.decoder.tokens) + 1
    assert answer["usage"]["completion_tokens"] == 3 * one


async def test_several_choices_stream_side_by_side(stage: Stage) -> None:
    stream = await stage.openai.chat.completions.create(
        model="test", messages=user(), stream=True, n=2
    )
    texts = {0: "", 1: ""}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "Hi there", 1: "Hi there"}


async def test_logprobs_have_openai_shape(stage: Stage) -> None:
    tokens = stage.will_say("Hi")
    answer = await stage.openai.chat.completions.create(
        model="test", messages=user(), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == len(tokens)
    first = logprobs.content[0]
    assert bytes(first.bytes or []) == first.token.encode()
    assert first.logprob == -0.5
    assert [top.logprob for top in first.top_logprobs] == [-0.5, -1.5]


async def test_sampling_parameters_reach_the_decoder(stage: Stage) -> None:
    await stage.post(
        messages=user(),
        temperature=0.25,
        top_p=0.5,
        top_k=7,
        min_p=0.125,
        seed=-3,
        presence_penalty=1.5,
        frequency_penalty=-0.5,
        repetition_penalty=1.25,
        logit_bias={"5": -100, "6": 2.5},
        stop_token_ids=[9],
        ignore_eos=True,
        user="somebody",
    )
    params = stage.decoder.starts[0].sampling_params
    assert (params.temperature, params.top_p, params.top_k) == (0.25, 0.5, 7)
    assert (params.min_p, params.seed) == (0.125, -3)
    assert (params.presence_penalty, params.frequency_penalty) == (1.5, -0.5)
    assert params.repetition_penalty == 1.25
    assert {bias.token_id: bias.bias for bias in params.logit_bias} == {5: -100, 6: 2.5}
    assert list(stage.decoder.starts[0].stop_conditions.stop_token_ids) == [9]
    assert stage.decoder.starts[0].stop_conditions.ignore_eos


async def test_the_checkpoints_generation_defaults_fill_what_is_left_out(stage: Stage) -> None:
    await stage.post(messages=user(), top_k=0)
    params = stage.decoder.starts[0].sampling_params
    assert params.temperature == pytest.approx(GENERATION["temperature"])
    assert params.top_p == pytest.approx(GENERATION["top_p"])
    assert params.HasField("top_k") and params.top_k == 0
    assert not params.HasField("min_p")


async def test_tools_stay_out_of_the_prompt_when_the_choice_is_none(stage: Stage) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    await stage.post(messages=user(), tools=[tool], tool_choice="none")
    await stage.post(messages=user())
    await stage.post(messages=user(), tools=[tool])
    without, plain, with_tool = (list(start.input_ids) for start in stage.decoder.starts)
    assert without == plain
    assert len(with_tool) > len(plain)


async def test_request_ids_are_taken_over_and_handed_on(stage: Stage) -> None:
    response = await stage.http.post(
        "/v1/chat/completions", json={"messages": user()}, headers={"x-request-id": "abc-1"}
    )
    assert response.headers["x-request-id"] == "abc-1"
    assert response.json()["id"] == "chatcmpl-abc-1"
    assert stage.decoder.starts[0].request_id == "abc-1"
    assert stage.decoder.metadata[0]["x-request-id"] == "abc-1"


async def test_odd_request_ids_are_replaced(stage: Stage) -> None:
    response = await stage.http.get("/v1/models", headers={"x-request-id": 'a b"c'})
    assert response.headers["x-request-id"] not in ("", 'a b"c')


async def test_what_remains_of_the_deadline_is_passed_on(bundle: Bundle) -> None:
    # gRPC tells deadlines beyond 1000 s in tens of seconds, rounded up: less than the defaults.
    async with staged(bundle, request_deadline_s=298.0, stream_deadline_s=3588.0) as stage:
        await stage.post(messages=user())
        await stage.post(messages=user(), stream=True)
        whole, streamed = stage.decoder.time_left_s
    assert whole is not None and 290 < whole <= 300
    assert streamed is not None and 3500 < streamed <= 3600
    defaults = GatewayConfig(bundle="b")
    assert (defaults.request_deadline_s, defaults.stream_deadline_s) == (300, 3600)


async def test_models_are_listed_and_found_by_name(stage: Stage) -> None:
    models = [model.id async for model in stage.openai.models.list()]
    assert models == ["test"]
    assert (await stage.openai.models.retrieve("test")).owned_by == "tandem"
    assert (await stage.http.get("/v1/models/other/name")).status_code == 404
