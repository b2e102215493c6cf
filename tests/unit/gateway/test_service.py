"""What both doors do for a request: one line in the log, one priority for the decoder."""

import asyncio
import logging
from typing import Any

import grpc
import pytest

from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import InternalError
from protos.wire.sampling import MAX_PRIORITY
from tests.unit.gateway.stage import Stage, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = gateway_pb2.ChatMessage(
    role=gateway_pb2.ROLE_USER, content=[gateway_pb2.ContentPart(text="Hello?")]
)
ID = "x-request-id"


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="protos.process.request_log")


async def line_of(caplog: pytest.LogCaptureFixture, name: str) -> str:
    """The one line of a request; a stream's is written just after its last byte."""
    async with asyncio.timeout(30):
        while True:
            lines = [text for text in caplog.messages if text.startswith(f"request id={name} ")]
            if lines:
                (line,) = lines
                return line
            await asyncio.sleep(0.01)


async def post(stage: Stage, name: str, **body: Any) -> None:
    """Asks over HTTP under a name."""
    await stage.http.post(
        "/v1/chat/completions", json={"messages": user(), **body}, headers={ID: name}
    )


async def complete(stage: Stage, **fields: Any) -> None:
    asked = gateway_pb2.ChatRequest(messages=[HELLO], **fields)
    assert [chunk async for chunk in stage.grpc.Complete(asked)]


async def test_both_doors_write_the_same_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = stage.will_say("Hi there")
    stage.decoder.cached_tokens = 3
    await post(stage, "whole")
    await post(stage, "streamed", stream=True)
    await complete(stage, request_id="rpc")
    prompt = len(stage.decoder.starts[0].input_ids)
    for name, door in (("whole", "http"), ("streamed", "http"), ("rpc", "grpc")):
        line = await line_of(caplog, name)
        assert " tier=gateway outcome=stop total_ms=" in line
        assert f" door={door} first_token_ms=" in line
        assert f" prompt_tokens={prompt} completion_tokens={len(tokens) + 1} " in line
        assert line.endswith(" cached_tokens=3")


async def test_choices_are_counted_together(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    tokens = stage.will_say("Hi there")
    await post(stage, "three", n=3)
    assert f" completion_tokens={3 * (len(tokens) + 1)} " in await line_of(caplog, "three")


async def test_a_stream_that_fails_midway_says_why(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.will_say("one two three four")
    stage.decoder.failure_after = (2, InternalError("internal error"))
    await post(stage, "broken", stream=True)
    line = await line_of(caplog, "broken")
    assert " outcome=INTERNAL " in line
    assert " first_token_ms=" in line


async def test_a_refused_request_says_why(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await post(stage, "bad", top_p=2)
    assert " outcome=INVALID_PARAMETER " in await line_of(caplog, "bad")


async def test_a_client_that_leaves_is_noted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.will_say("one two three four")
    stage.decoder.stall_after = 2
    asking = asyncio.create_task(post(stage, "gone", stream=True))
    await stage.decoder.stalling.wait()
    asking.cancel()
    assert " outcome=CANCELLED " in await line_of(caplog, "gone")


async def test_preparing_is_a_request_too(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    asked = gateway_pb2.PrepareRequest(messages=[HELLO])
    prompt = await stage.grpc.Prepare(asked, metadata=((ID, "prepared"),))
    line = await line_of(caplog, "prepared")
    assert " outcome=ok " in line
    assert line.endswith(f" door=grpc prompt_tokens={len(prompt.input_ids)}")


async def test_lower_priorities_are_more_urgent_to_the_decoder(stage: Stage) -> None:
    for priority in (-MAX_PRIORITY, 7, MAX_PRIORITY):
        assert (await stage.post(messages=user(), priority=priority)).status_code == 200
        await complete(stage, priority=priority)
    assert (await stage.post(messages=user())).status_code == 200
    sent = [start.priority for start in stage.decoder.starts]
    assert sent == [MAX_PRIORITY, MAX_PRIORITY, -7, -7, -MAX_PRIORITY, -MAX_PRIORITY, 0]


async def test_priorities_are_bounded_at_both_doors(stage: Stage) -> None:
    for priority in (-MAX_PRIORITY - 1, MAX_PRIORITY + 1, 2**70, 0.5):
        response = await stage.post(messages=user(), priority=priority)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "priority"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(stage, priority=MAX_PRIORITY + 1)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert stage.decoder.starts == []
