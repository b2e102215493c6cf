"""The gRPC door: the same pipeline, with token ids, logits and timings."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.prompt.builder import PromptBuilder
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire import tensors
from protos.wire.errors import Overloaded, Reason, from_rpc_error
from tests.support.prompts import png
from tests.unit.gateway.stage import GENERATION, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


def request(*parts: str | bytes, **fields: Any) -> gateway_pb2.ChatRequest:
    """A conversation of one turn."""
    content = [
        gateway_pb2.ContentPart(text=part)
        if isinstance(part, str)
        else gateway_pb2.ContentPart(image=part)
        for part in parts
    ]
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=content)
    return gateway_pb2.ChatRequest(messages=[message], **fields)


async def complete(
    stage: Stage, asked: gateway_pb2.ChatRequest, **options: Any
) -> list[gateway_pb2.ChatChunk]:
    return [chunk async for chunk in stage.grpc.Complete(asked, **options)]


async def failure(stage: Stage, asked: gateway_pb2.ChatRequest, **options: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(stage, asked, **options)
    return from_rpc_error(caught.value).reason


async def test_an_answer_carries_text_token_ids_and_counts(stage: Stage) -> None:
    tokens = stage.will_say("Hi there, you")
    stage.decoder.cached_tokens = 2
    chunks = await complete(stage, request("Hello?", request_id="abc"))
    assert "".join(chunk.text for chunk in chunks) == "Hi there, you"
    assert [token for chunk in chunks for token in chunk.token_ids] == tokens
    assert [chunk.HasField("completion") for chunk in chunks] == [False] * len(tokens) + [True]
    end = chunks[-1].completion
    assert end.finish_reason == decoder_pb2.FINISH_REASON_STOP
    assert end.prompt_tokens == len(stage.decoder.starts[0].input_ids)
    assert (end.completion_tokens, end.cached_tokens) == (len(tokens) + 1, 2)
    assert stage.decoder.starts[0].request_id == "abc"


async def test_logits_and_logprobs_pass_through(stage: Stage) -> None:
    tokens = stage.will_say("Hi")
    options = decoder_pb2.ReportOptions(logprobs=True, top_logprob_count=1, logits=True)
    chunks = await complete(stage, request("Hello?", report_options=options))
    rows = np.concatenate(
        [
            tensors.float32_from_proto(chunk.logits, field="logits", shape=(None, None))
            for chunk in chunks
            if chunk.token_ids
        ]
    )
    assert rows.shape == (len(tokens), stage.bundle.manifest.text.vocab_size)
    assert rows[:, 0].tolist() == tokens
    assert chunks[0].logprobs[0].logprob == -0.5
    assert chunks[0].logprobs[0].top[0].token_id == tokens[0]


async def test_timings_tell_where_the_time_went(stage: Stage) -> None:
    chunks = await complete(stage, request("What?", png(64, 64)))
    timings = chunks[-1].completion.timings
    assert timings.prepare_ms > 0
    assert (timings.preprocess_ms, timings.encode_ms) == (2.0, 3.0)
    assert timings.transfer_ms == pytest.approx(50.0 - 6.0)
    assert timings.prefill_ms == 5.0
    assert timings.first_token_ms > 0


async def test_an_answer_over_early_still_tells_the_time_of_encoding(stage: Stage) -> None:
    stage.vision.summary_delay_s = 0.2
    stage.decoder.is_hasty = True
    chunks = await complete(stage, request("What?", png(64, 64)))
    timings = chunks[-1].completion.timings
    assert (timings.preprocess_ms, timings.encode_ms) == (2.0, 3.0)


async def test_text_alone_has_no_image_timings(stage: Stage) -> None:
    chunks = await complete(stage, request("What?"))
    timings = chunks[-1].completion.timings
    assert (timings.preprocess_ms, timings.encode_ms, timings.transfer_ms) == (0, 0, 0)


async def test_zero_is_a_value_and_unset_takes_the_defaults(stage: Stage) -> None:
    await complete(
        stage, request("Hello?", sampling_params=decoder_pb2.SamplingParams(temperature=0.0))
    )
    params = stage.decoder.starts[0].sampling_params
    assert params.HasField("temperature") and params.temperature == 0
    assert params.top_k == GENERATION["top_k"]


async def test_stop_strings_end_the_answer(stage: Stage) -> None:
    stage.will_say("one END two")
    chunks = await complete(stage, request("Hello?", stop_strings=["END"]))
    assert "".join(chunk.text for chunk in chunks) == "one "
    assert chunks[-1].completion.finish_reason == decoder_pb2.FINISH_REASON_STOP


async def test_prepare_returns_what_complete_sends(stage: Stage) -> None:
    asked = request("What?", png(64, 64), png(96, 64))
    await complete(stage, asked)
    start = stage.decoder.starts[0]
    prompt = await stage.grpc.Prepare(gateway_pb2.PrepareRequest(messages=asked.messages))
    assert list(prompt.input_ids) == list(start.input_ids)
    assert prompt.position_ids == start.position_ids
    assert prompt.position_delta == start.position_delta
    assert list(prompt.visual_spans) == list(start.visual_spans)
    assert [(grid.t, grid.h, grid.w) for grid in prompt.grid_thw] == [(1, 16, 16), (1, 14, 20)]


async def test_detail_and_areas_choose_an_images_size(stage: Stage) -> None:
    asked = request(png(1000, 800), png(1000, 800), png(64, 64))
    low, small, large = asked.messages[0].content
    low.detail = gateway_pb2.IMAGE_DETAIL_LOW
    small.max_pixels = 50_176
    large.min_pixels = 160_000
    prompt = await stage.grpc.Prepare(gateway_pb2.PrepareRequest(messages=asked.messages))
    assert [(grid.h, grid.w) for grid in prompt.grid_thw] == [(28, 34), (12, 14), (26, 26)]


@pytest.mark.parametrize(
    "fields", [{"detail": 9}, {"min_pixels": 0}, {"min_pixels": 2, "max_pixels": 1}]
)
async def test_a_size_that_makes_no_sense_is_refused(stage: Stage, fields: dict[str, int]) -> None:
    asked = request("What?")
    asked.messages[0].content.add(image=png(64, 64), **fields)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(stage, asked)
    error = from_rpc_error(caught.value)
    assert error.param == f"messages[0].content[1].{next(iter(fields))}"
    assert stage.vision.requests == []


async def test_a_tool_conversation_is_rendered_as_over_http(stage: Stage) -> None:
    tool = '{"type": "function", "function": {"name": "look", "parameters": {}}}'
    call = '{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}'
    asked = request("Hello?", tools_json=[tool])
    asked.messages.add(role=gateway_pb2.ROLE_ASSISTANT, tool_calls_json=[call])
    asked.messages.add(role=gateway_pb2.ROLE_TOOL, content=[gateway_pb2.ContentPart(text="a cat")])
    await complete(stage, asked)
    rendered = PromptBuilder(stage.bundle)
    assert len(stage.decoder.starts[0].input_ids) > 20
    assert rendered.tokenizer.encode_text("look")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (gateway_pb2.ChatRequest(), Reason.INVALID_PARAMETER),
        (request(" "), Reason.INVALID_PARAMETER),
        (
            gateway_pb2.ChatRequest(messages=[gateway_pb2.ChatMessage(role=77)]),  # type: ignore[arg-type]
            Reason.INVALID_PARAMETER,
        ),
        (request("hi", model="other"), Reason.MODEL_NOT_FOUND),
        (request("hi", tools_json=["["]), Reason.INVALID_PARAMETER),
        (request("hi", tools_json=["[" * 100_000]), Reason.INVALID_PARAMETER),
        (request("hi", b"no image"), Reason.UNSUPPORTED_MEDIA),
        (
            request("hi", sampling_params=decoder_pb2.SamplingParams(temperature=float("nan"))),
            Reason.INVALID_PARAMETER,
        ),
        (
            request("hi", stop_conditions=decoder_pb2.StopConditions(max_tokens=0)),
            Reason.INVALID_PARAMETER,
        ),
        (request("hi", stop_strings=["x" * 300]), Reason.INVALID_PARAMETER),
    ],
)
async def test_bad_requests_are_refused_with_their_reason(
    stage: Stage, asked: gateway_pb2.ChatRequest, reason: Reason
) -> None:
    assert await failure(stage, asked) is reason
    assert stage.decoder.starts == []


async def test_a_full_decoder_passes_through(stage: Stage) -> None:
    stage.decoder.failure = Overloaded("full", retry_after_s=2.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(stage, request("hi"))
    error = from_rpc_error(caught.value)
    assert (error.reason, error.retry_after_s) == (Reason.QUEUE_FULL, 2.0)


async def test_a_cancelled_call_cancels_the_decoder(stage: Stage) -> None:
    stage.will_say("one two three")
    stage.decoder.stall_after = 1
    call = stage.grpc.Complete(request("hi"))
    await stage.decoder.stalling.wait()
    call.cancel()
    async with asyncio.timeout(30):
        await stage.decoder.cancelled.wait()


async def test_a_clients_deadline_is_passed_on_and_kept(stage: Stage) -> None:
    stage.decoder.stall_after = 0
    stage.will_say("one")
    reason = await failure(stage, request("hi"), timeout=1.5)
    assert reason is Reason.DEADLINE_EXCEEDED
    (left,) = stage.decoder.time_left_s
    assert left is not None and left < 1.6
    async with asyncio.timeout(30):
        await stage.decoder.cancelled.wait()
