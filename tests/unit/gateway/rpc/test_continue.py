"""Continue: a prepared prompt with the caller's own features is answered as a conversation is."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import Reason, ServiceError, Unavailable, from_rpc_error
from protos.wire.features import FORMS
from tests.support.brought import messages, some_features
from tests.support.prompts import png
from tests.unit.gateway.fakes import FakeDecoder
from tests.unit.gateway.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

Messages = list[gateway_pb2.ContinueRequest]
ASKED = [
    gateway_pb2.ChatMessage(
        role=gateway_pb2.ROLE_USER,
        content=[
            gateway_pb2.ContentPart(text="Which?"),
            gateway_pb2.ContentPart(image=png(64, 64)),
            gateway_pb2.ContentPart(image=png(96, 64)),
        ],
    )
]
MOST_BYTES = 100_000  # below the features of these images in float32, above them in int8
KEYS = """
[[keys]]
name = "free"
key = "k-free"

[[keys]]
name = "blind"
key = "k-blind"
image_tokens_per_minute = 6

[[keys]]
name = "late"
key = "k-late"
priority = 20
"""


async def prompt_of(stage: Stage, **options: Any) -> gateway_pb2.PreparedPrompt:
    asked = gateway_pb2.PrepareRequest(messages=ASKED)
    prompt: gateway_pb2.PreparedPrompt = await stage.grpc.Prepare(asked, **options)
    return prompt


async def continued(
    stage: Stage, sent: Iterable[gateway_pb2.ContinueRequest], **options: Any
) -> list[gateway_pb2.ChatChunk]:
    return [chunk async for chunk in stage.grpc.Continue(iter(sent), **options)]


async def refused(
    stage: Stage, sent: Iterable[gateway_pb2.ContinueRequest], **options: Any
) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await continued(stage, sent, **options)
    return from_rpc_error(caught.value)


def text_of(chunks: list[gateway_pb2.ChatChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_an_answer_comes_as_completes_does(stage: Stage) -> None:
    asked = gateway_pb2.ChatRequest(messages=ASKED, request_id="abc")
    whole = [chunk async for chunk in stage.grpc.Complete(asked)]
    start = stage.decoder.starts.pop()
    stage.vision.reset()
    stage.decoder.features.clear()
    prompt = await prompt_of(stage)
    sent = messages(prompt, some_features(prompt), request_id="abc")
    chunks = await continued(stage, sent)
    assert [list(chunk.token_ids) for chunk in chunks] == [list(chunk.token_ids) for chunk in whole]
    assert text_of(chunks) == text_of(whole) == "Hi there"
    (end, wanted) = chunks[-1].completion, whole[-1].completion
    for name in ("prompt_tokens", "completion_tokens", "image_tokens", "finish_reason"):
        assert getattr(end, name) == getattr(wanted, name)
    (own,) = stage.decoder.starts
    for name in ("request_id", "input_ids", "position_ids", "position_delta", "cache_salt"):
        assert getattr(own, name) == getattr(start, name)
    assert stage.vision.requests == []


async def test_a_message_that_cannot_be_parsed_is_refused_as_any_bad_one(stage: Stage) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.gateway.grpc_port}") as channel:
        method: Any = channel.stream_stream("/tandem.v1.ChatService/Continue")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in method(iter([b"\xff\xff\xff"])):
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("form", FORMS)
async def test_the_decoder_gets_the_callers_features(stage: Stage, form: str) -> None:
    prompt = await prompt_of(stage)
    sent = messages(prompt, some_features(prompt), form=form)
    await continued(stage, sent)
    got = sorted((features for _, features in stage.decoder.features), key=str)
    assert got == sorted((message.features for message in sent[1:]), key=str)


async def test_features_are_named_by_what_they_are_and_never_as_an_image(stage: Stage) -> None:
    prompt = await prompt_of(stage)
    for seed in (0, 0, 1):
        await continued(stage, messages(prompt, some_features(prompt, seed=seed)))
    names = [[span.digest for span in start.visual_spans] for start in stage.decoder.starts]
    assert names[0] == names[1]
    images = {span.digest for span in prompt.visual_spans}
    assert len({*names[0], *names[2], *images}) == 6
    forged = messages(prompt, some_features(prompt))
    for at, span in enumerate(forged[0].start.prompt.visual_spans):
        span.digest = prompt.visual_spans[at].digest  # as Prepare told it
    await continued(stage, forged)
    assert [span.digest for span in stage.decoder.starts[-1].visual_spans] == names[0]


async def test_everything_that_chat_offers_reaches_the_decoder(stage: Stage) -> None:
    prompt = await prompt_of(stage)
    sent = messages(
        prompt,
        some_features(prompt),
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0, seed=3),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=9),
        report_options=decoder_pb2.ReportOptions(logprobs=True),
        constraint=decoder_pb2.Constraint(regex="[a-z ]+"),
        cache_salt="mine",
        priority=7,
        stop_strings=["there"],
    )
    chunks = await continued(stage, sent)
    (start,) = stage.decoder.starts
    assert (start.sampling_params.temperature, start.sampling_params.seed) == (0.0, 3)
    assert (start.stop_conditions.max_tokens, start.priority) == (9, -7)
    assert start.report_options.logprobs and start.constraint.regex == "[a-z ]+"
    assert start.cache_salt
    assert text_of(chunks) == "Hi "


async def test_calls_of_the_tools_it_was_prepared_with_are_told_apart(stage: Stage) -> None:
    said = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    stage.decoder.tokens = stage.tokenizer.encode_prompt(said, "\ufdd0").ids
    prompt = await prompt_of(stage)
    tool = json.dumps({"type": "function", "function": {"name": "look"}})
    sent = messages(prompt, some_features(prompt), tools_json=[tool])
    chunks = await continued(stage, sent)
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert "".join(call.name for call in calls) == "look" and text_of(chunks) == ""
    assert chunks[-1].completion.finish_reason == decoder_pb2.FINISH_REASON_TOOL_CALLS
    assert stage.decoder.starts[0].HasField("constraint")


async def test_a_prompt_of_text_needs_no_features(stage: Stage) -> None:
    text = gateway_pb2.ContentPart(text="Hello?")
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[text])
    prompt = await stage.grpc.Prepare(gateway_pb2.PrepareRequest(messages=[message]))
    assert text_of(await continued(stage, messages(prompt, []))) == "Hi there"


def changed(sent: Messages, **fields: Any) -> Messages:
    start = gateway_pb2.ContinueStart()
    start.CopyFrom(sent[0].start)
    start.MergeFrom(gateway_pb2.ContinueStart(**fields))
    return [gateway_pb2.ContinueRequest(start=start), *sent[1:]]


def with_brought(sent: Messages, **fields: Any) -> Messages:
    found = changed(sent)
    for name, value in fields.items():
        setattr(found[0].start.span_features[0], name, value)
    return found


def with_one_less(sent: Messages, listed: str) -> Messages:
    found = changed(sent)
    start = found[0].start
    del getattr(start.prompt if listed == "grid_thw" else start, listed)[-1]
    return found


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (lambda sent: [], "start", Reason.INVALID_PARAMETER),
        (lambda sent: sent[1:], "start", Reason.INVALID_PARAMETER),
        (lambda sent: [sent[0], *sent], "features", Reason.INVALID_PARAMETER),
        (lambda sent: sent[:-1], "features", Reason.INVALID_SPAN),
        (lambda sent: with_one_less(sent, "grid_thw"), "prompt.grid_thw", Reason.INVALID_SPAN),
        (lambda sent: with_one_less(sent, "span_features"), "span_features", Reason.INVALID_SPAN),
        (lambda sent: with_brought(sent, dtype=5), "span_features[0].dtype", None),
        (lambda sent: with_brought(sent, digest=b"short"), "span_features[0].digest", None),
        (lambda sent: with_brought(sent, digest=bytes(32)), "span_features[0].digest", None),
        (lambda sent: changed(sent, prompt={"input_ids": [1]}), "prompt.position_ids", None),
        (lambda sent: changed(sent, model="other"), None, Reason.MODEL_NOT_FOUND),
        (lambda sent: changed(sent, stop_conditions={"max_tokens": 0}), "max_tokens", None),
        (
            lambda sent: changed(sent, stop_conditions={"max_tokens": 4096}),
            "max_tokens",
            Reason.CONTEXT_LENGTH_EXCEEDED,
        ),
        (
            lambda sent: changed(sent, constraint={"json_object": False}),
            "constraint.json_object",
            None,
        ),
        (lambda sent: changed(sent, tools_json=["["]), "tools_json[0]", None),
    ],
)
async def test_what_is_wrong_is_refused_before_a_decoder_is_asked(
    stage: Stage, change: Any, field: str | None, reason: Reason | None
) -> None:
    prompt = await prompt_of(stage)
    error = await refused(stage, change(messages(prompt, some_features(prompt))))
    if field is not None:
        assert error.param == field
    if reason is not None:
        assert error.reason is reason
    assert error.kind.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert stage.decoder.starts == []


async def test_an_answer_that_moves_takes_its_features_along(bundle: Bundle) -> None:
    async with FakeDecoder(bundle) as one, FakeDecoder(bundle) as other:
        async with staged(bundle, decoder=f"{one.address},{other.address}") as stage:
            for decoder in (one, other):
                decoder.tokens = stage.tokenizer.encode_text("one two three")
                decoder.failure_once_after = (2, Unavailable("gone", reason=Reason.DRAINING))
            prompt = await prompt_of(stage)
            sent = messages(prompt, some_features(prompt))
            assert text_of(await continued(stage, sent)) == "one two three"
            both = [{str(each) for _, each in decoder.features} for decoder in (one, other)]
            assert both[0] == both[1] == {str(message.features) for message in sent[1:]}


@asynccontextmanager
async def limited(bundle: Bundle, folder: Path) -> AsyncIterator[Stage]:
    keys = folder / "keys.toml"
    keys.write_text(KEYS)
    async with staged(
        bundle, key_file=str(keys), max_in_flight_bytes=MOST_BYTES, slow_client_s=0.3
    ) as stage:
        stage.will_say("Hi there")
        yield stage


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def limits(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with limited(bundle, tmp_path_factory.mktemp("keys")) as stage:
        yield stage


def key(name: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer k-{name}"),)}


async def test_limits_hold_before_any_feature_is_read(limits: Stage) -> None:
    prompt = await prompt_of(limits, **key("free"))
    values = some_features(prompt)
    assert sum(each.nbytes for each in values) > MOST_BYTES
    assert (await refused(limits, messages(prompt, values))).reason is Reason.INVALID_API_KEY
    start = messages(prompt, values)[:1]
    assert (await refused(limits, start, **key("free"))).reason is Reason.REQUEST_TOO_LARGE
    small = messages(prompt, values, form="int8")
    assert (await continued(limits, small, **key("blind")))[-1].HasField("completion")
    again = await refused(limits, small[:1], **key("blind"))
    assert again.reason is Reason.RATE_LIMIT_EXCEEDED and again.retry_after_s
    await continued(limits, small, **key("late"))
    assert limits.decoder.starts[-1].priority == -20
    salts = {start.cache_salt for start in limits.decoder.starts}
    assert len(salts) == 2 and b"" not in salts


async def test_features_have_room_until_their_answer_has_ended(limits: Stage) -> None:
    limits.decoder.reset()
    limits.decoder.stall_after = 0
    prompt = await prompt_of(limits, **key("free"))
    sent = messages(prompt, some_features(prompt), form="int8")
    calls = [limits.grpc.Continue(iter(sent), **key("free")) for _ in range(2)]
    async with asyncio.timeout(30):
        while len(limits.decoder.starts) < 2:  # noqa: ASYNC110  # a fake's list has no event
            await asyncio.sleep(0.01)
    assert (await refused(limits, sent[:1], **key("free"))).reason is Reason.QUEUE_FULL
    for call in calls:
        call.cancel()
    limits.decoder.reset()
    limits.will_say("Hi there")


async def test_a_caller_that_falls_silent_is_given_up(limits: Stage) -> None:
    prompt = await prompt_of(limits, **key("free"))
    sent = messages(prompt, some_features(prompt), form="int8")
    for so_far in ([], sent[:1], sent[:3]):

        async def silent(said: Messages = so_far) -> AsyncIterator[gateway_pb2.ContinueRequest]:
            for message in said:
                yield message
            await asyncio.sleep(30)

        call = limits.grpc.Continue(silent(), **key("free"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        error = from_rpc_error(caught.value)
        assert error.reason is Reason.DEADLINE_EXCEEDED
        assert error.param == ("features" if so_far else "start")
    metrics = (await limits.http.get("/metrics", headers=dict(key("free")["metadata"]))).text
    assert "tandem:gateway_request_bytes 0.0" in metrics
