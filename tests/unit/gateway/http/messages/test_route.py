"""/v1/messages through Anthropic's own client, over fake tiers."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import Overloaded
from tests.support.prompts import png
from tests.unit.gateway.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/messages"
HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]
ASKED: dict[str, Any] = {"model": "test", "max_tokens": 32}


def image() -> dict[str, Any]:
    data = base64.b64encode(png(64, 64)).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
        "cache_control": {"type": "ephemeral"},
    }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(module_stage: Stage) -> AsyncIterator[anthropic.AsyncAnthropic]:
    base = str(module_stage.http.base_url)
    async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as opened:
        yield opened


async def test_a_question_is_answered_whole(stage: Stage, client: anthropic.AsyncAnthropic) -> None:
    stage.decoder.cached_tokens = 3
    answer = await client.messages.create(**ASKED, messages=HELLO)
    assert [(block.type, block.text) for block in answer.content] == [("text", "Hi there")]
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", "test", "end_turn")
    usage = answer.usage
    # What was cached counts apart.
    assert usage.input_tokens == len(stage.decoder.starts[0].input_ids) - 3
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 0)
    assert usage.output_tokens == len(stage.decoder.tokens) + 1
    assert stage.decoder.starts[0].stop_conditions.max_tokens == 32
    assert answer._request_id


async def test_the_clients_own_stream_puts_it_together(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    kinds = []
    async with client.messages.stream(**ASKED, messages=HELLO) as stream:
        async for event in stream:
            kinds.append(event.type)
        final = await stream.get_final_message()
    whole = await client.messages.create(**ASKED, messages=HELLO)
    assert [block.text for block in final.content] == ["Hi there"]  # type: ignore[union-attr]
    assert (final.usage.input_tokens, final.usage.output_tokens) == (
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )
    assert final.stop_reason == "end_turn"
    # Beside what is sent, the client tells of each text.
    sent = [kind for kind in kinds if kind != "text"]
    deltas = sent.count("content_block_delta")
    assert deltas == len(stage.decoder.tokens)
    assert sent == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_an_answer_that_is_cut_says_so(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    said = len(stage.decoder.tokens)
    answer = await client.messages.create(model="test", max_tokens=said, messages=HELLO)
    assert answer.stop_reason == "max_tokens"


async def test_a_stop_sequence_is_told(stage: Stage, client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(**ASKED, messages=HELLO, stop_sequences=["ther", "xx"])
    assert [block.text for block in answer.content if block.type == "text"] == ["Hi "]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "ther")


async def test_more_tokens_may_be_asked_for_than_there_is_room(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    answer = await client.messages.create(model="test", max_tokens=8_192, messages=HELLO)
    assert answer.stop_reason == "model_context_window_exceeded"


async def test_images_are_seen_in_turns_and_in_results(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "door"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "seen"}, image()],
    }
    messages: list[Any] = [
        {"role": "user", "content": [image(), {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    await client.messages.create(**ASKED, messages=messages)
    assert len(stage.vision.requests) == 2


async def test_a_broken_image_is_named_by_its_block(stage: Stage) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "image", "source": source}],
    }
    asked = {
        **ASKED,
        "system": "Look.",
        "messages": [*HELLO, {"role": "user", "content": [result]}],
    }
    answer = await stage.http.post(URL, json=asked)
    assert answer.status_code == 400
    error = answer.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert "messages[1].content[0].content[0]" in error["error"]["message"]


async def test_what_the_command_line_client_sends_is_taken(stage: Stage) -> None:
    ephemeral = {"type": "ephemeral", "ttl": "1h"}
    asked = {
        "model": "test",
        "max_tokens": 32,
        "stream": True,
        "temperature": 1,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=0a1b2;"},
            {"type": "text", "text": "You are brief.", "cache_control": ephemeral},
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Hello?", "cache_control": ephemeral}],
            }
        ],
        "tools": [
            {
                "name": "Read",
                "description": "Reads a file",
                "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
                "eager_input_streaming": True,
            }
        ],
        "tool_choice": {"type": "auto"},
        "metadata": {"user_id": "user_1_account__session_2"},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "service_tier": "auto",
        "speed": None,
    }
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "x-api-key": "none",
        "x-app": "cli",
        "user-agent": "claude-cli/2.1.0 (external, cli)",
    }
    answer = await stage.http.post(URL + "?beta=true", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "event: message_stop" in answer.text
    plain = {**ASKED, "system": "You are brief.", "messages": HELLO, "tools": asked["tools"]}
    await stage.http.post(URL, json={**plain, "messages": asked["messages"]})
    marked, without = (list(start.input_ids) for start in stage.decoder.starts)
    assert marked == without
    count = await stage.http.post(
        URL + "/count_tokens?beta=true",
        json={name: asked[name] for name in ("model", "system", "messages", "tools", "thinking")},
    )
    assert count.json() == {"input_tokens": len(without)}


async def test_tokens_are_counted_with_images(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    messages: list[Any] = [{"role": "user", "content": [image()]}]
    count = await client.messages.count_tokens(model="test", messages=messages)
    answer = await client.messages.create(**ASKED, messages=messages)
    assert count.input_tokens == answer.usage.input_tokens


async def test_a_schema_holds_the_answer(stage: Stage) -> None:
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    for field in ({"output_config": {"format": schema}}, {"output_format": schema}):
        answer = await stage.http.post(URL, json={**ASKED, "messages": HELLO, **field})
        assert answer.status_code == 200, answer.text
        assert stage.decoder.starts[-1].constraint.json_schema == '{"type": "object"}'


async def test_a_failure_midway_is_an_error_event(
    stage: Stage, client: anthropic.AsyncAnthropic
) -> None:
    stage.decoder.failure_after = (1, Overloaded("the pool is full"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        async with client.messages.stream(**ASKED, messages=HELLO) as stream:
            async for _ in stream:
                pass
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "the pool is full"},
    }


async def test_leaving_a_stream_ends_the_work(stage: Stage) -> None:
    stage.decoder.stall_after = 1
    asked = {**ASKED, "messages": HELLO, "stream": True}
    async with stage.http.stream("POST", URL, json=asked) as answer:
        await anext(answer.aiter_lines())
    await stage.decoder.cancelled.wait()


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("max_tokens is missing", {"max_tokens": None}),
        ("tools[0]", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}),
        ("container", {"container": "c"}),
        ("temperature", {"temperature": 3}),
        ("messages[1]", {"messages": [*HELLO, {"role": "assistant", "content": "{"}]}),
        (
            "messages[0].content[0].source",
            {"messages": [{"role": "user", "content": [{"type": "document", "source": PDF}]}]},
        ),
        (
            "messages[0].content[0]",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
                        ],
                    }
                ]
            },
        ),
        (
            "messages[0].content[0] has type 'server_tool_use'",
            {"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]},
        ),
    ],
)
async def test_what_is_not_done_is_refused_by_name(
    stage: Stage, named: str, change: dict[str, Any]
) -> None:
    asked = {**ASKED, "messages": HELLO, **change}
    answer = await stage.http.post(
        URL, json={name: value for name, value in asked.items() if value is not None}
    )
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]["message"]
    assert stage.decoder.starts == []
