"""/v1/responses through OpenAI's own client and Open Responses' types, over fake tiers."""

from typing import Any

import openai
import openresponses_types as spec
import pytest
from pydantic import BaseModel

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import Overloaded
from tests.support.prompts import png
from tests.unit.gateway.http.responses.events import checked_events
from tests.unit.gateway.stage import Stage, data_url, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/responses"
PDF = {"type": "input_file", "file_data": "JVBERi0xLjcK/w=="}


def message(content: Any, role: str = "user") -> Any:
    return {"type": "message", "role": role, "content": content}


def image() -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(png(64, 64)), "detail": "low"}


async def test_a_string_is_answered_whole(stage: Stage) -> None:
    answer = await stage.openai.responses.create(model="test", input="Hello?")
    assert answer.output_text == "Hi there"
    assert (answer.status, answer.error, answer.incomplete_details) == ("completed", None, None)
    assert answer.usage is not None
    assert answer.usage.input_tokens == len(stage.decoder.starts[0].input_ids)
    assert answer.usage.output_tokens == len(stage.decoder.tokens) + 1
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_the_body_is_one_of_open_responses(stage: Stage) -> None:
    asked = {
        "model": "test",
        "input": [message("Hello?")],
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 20,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "user": "me",
    }
    body = (await stage.http.post(URL, json=asked)).json()
    spec.ResponseResource.model_validate(body)
    assert body["instructions"] == "Be brief."
    assert body["metadata"] == {"a": "b"}
    assert body["max_output_tokens"] == 20
    # What the request leaves out is the checkpoint's, and is told.
    assert (body["temperature"], body["top_p"]) == (0.5, 0.8)


async def test_a_stream_is_numbered_complete_and_ends_with_the_whole(stage: Stage) -> None:
    events = await checked_events(stage, {"input": "Hello?", "stream": True})
    kinds = [event["type"] for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas == len(stage.decoder.tokens)
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts = [event["delta"] for event in events if "delta" in event]
    assert "".join(texts) == "Hi there" == events[-1]["response"]["output"][0]["content"][0]["text"]


async def test_the_clients_own_stream_puts_it_together(stage: Stage) -> None:
    async with stage.openai.responses.stream(model="test", input="Hello?") as stream:
        final = await stream.get_final_response()
    assert final.output_text == "Hi there"
    kept = await stage.openai.responses.retrieve(final.id)
    assert kept.output_text == "Hi there"


async def test_a_schema_is_parsed(stage: Stage) -> None:
    class Answer(BaseModel):
        legs: int

    stage.will_say('{"legs": 8}')
    answer = await stage.openai.responses.parse(model="test", input="?", text_format=Answer)
    assert answer.output_parsed == Answer(legs=8)
    assert '"legs"' in stage.decoder.starts[0].constraint.json_schema


async def test_an_answer_that_is_cut_is_incomplete(stage: Stage) -> None:
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    events = await checked_events(stage, {"input": "?", "stream": True, "max_output_tokens": 16})
    last = events[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert stage.decoder.starts[0].stop_conditions.max_tokens == 16


async def test_nothing_said_is_a_message_without_text(stage: Stage) -> None:
    stage.decoder.tokens = ()
    answer = await stage.openai.responses.create(model="test", input="Hello?")
    assert (answer.output_text, len(answer.output)) == ("", 1)


async def test_a_failure_midway_is_the_last_event(stage: Stage) -> None:
    stage.decoder.failure_after = (1, Overloaded("the pool is full"))
    answer = await stage.http.post(URL, json={"input": "Hello?", "stream": True})
    assert answer.status_code == 200
    last = answer.text.rstrip().split("\n\n")[-1]
    assert last.startswith("event: response.failed\n")
    assert '"code":"queue_full"' in last
    assert "[DONE]" not in answer.text


async def test_a_failure_before_the_first_token_has_a_status(stage: Stage) -> None:
    stage.decoder.failure = Overloaded("full", retry_after_s=7)
    with pytest.raises(openai.RateLimitError) as caught:
        await stage.openai.responses.create(model="test", input="Hello?", stream=True)
    assert caught.value.response.headers["retry-after"] == "7"


async def test_images_are_seen_and_a_broken_one_is_named(stage: Stage) -> None:
    text = {"type": "input_text", "text": "What?"}
    await stage.openai.responses.create(model="test", input=[message([text, image()])])
    assert len(stage.vision.requests) == 1
    broken = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    asked = {"instructions": "Look.", "input": [message("Hello?"), message([text, broken])]}
    error = (await stage.http.post(URL, json=asked)).json()["error"]
    assert error["param"] == "input[1].content[1]"
    assert "input[1].content[1]" in error["message"]


async def test_logprobs_come_with_the_text(stage: Stage) -> None:
    asked = {"input": "?", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    body = (await stage.http.post(URL, json=asked)).json()
    found = body["output"][0]["content"][0]["logprobs"]
    assert len(found) == len(stage.decoder.tokens)
    assert len(found[0]["top_logprobs"]) == 2
    spec.ResponseResource.model_validate(body)
    events = await checked_events(stage, {**asked, "stream": True})
    told = [one for event in events for one in event.get("logprobs", []) if "delta" in event]
    assert told == found


async def test_a_conversation_goes_on_from_a_kept_answer(stage: Stage) -> None:
    first = await stage.openai.responses.create(
        model="test",
        input=[message([image()])],
        instructions="Be brief.",
    )
    second = await stage.openai.responses.create(
        model="test", input="And now?", previous_response_id=first.id
    )
    assert second.previous_response_id == first.id
    by_hand = [
        message([image()]),
        {"type": "message", "role": "assistant", "content": "Hi there"},
        message("And now?"),
    ]
    await stage.openai.responses.create(model="test", input=by_hand)
    # Instructions hold for one answer.
    _, went_on, told = (list(start.input_ids) for start in stage.decoder.starts)
    assert went_on[: len(told) - 1] == told[:-1]
    reference = [
        message([image()]),
        {"type": "item_reference", "id": first.output[0].id},
        message("And now?"),
    ]
    await stage.openai.responses.create(model="test", input=reference)
    assert list(stage.decoder.starts[-1].input_ids) == told


async def test_the_first_turns_go_where_they_may_and_all_do_not_fit(stage: Stage) -> None:
    long = [message("word " * 700), message("Yes.", "assistant")] * 9
    asked = {"input": [*long, message("And now?")], "instructions": "Be brief."}
    refused = await stage.http.post(URL, json=asked)
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    answer = await stage.http.post(URL, json={**asked, "truncation": "auto"})
    assert answer.status_code == 200, answer.text
    spec.ResponseResource.model_validate(answer.json())
    assert answer.json()["truncation"] == "auto"
    (start,) = stage.decoder.starts
    assert 700 < len(start.input_ids) < 4096
    spelled = map(stage.gateway._token_bytes.of, start.input_ids)
    text = b"".join(spelled).decode(errors="replace")
    assert "Be brief." in text
    assert text.count("Yes.") == text.count("word " * 700) > 0
    alone = {"input": [message("word " * 5000)], "truncation": "auto"}
    error = (await stage.http.post(URL, json=alone)).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


async def test_an_answer_is_kept_until_it_is_deleted_and_not_where_store_is_false(
    stage: Stage,
) -> None:
    client = stage.openai.responses
    kept, gone = (
        await client.create(model="test", input="?"),
        await client.create(model="test", input="?", store=False),
    )
    assert (kept.store, gone.store) == (True, False)  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        await client.retrieve(gone.id)
    assert (await client.retrieve(kept.id)).output_text == "Hi there"
    await client.delete(kept.id)
    for call in (client.retrieve, client.delete):
        with pytest.raises(openai.NotFoundError):
            await call(kept.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.create(model="test", input="?", previous_response_id=kept.id)
    assert caught.value.param == "previous_response_id"


async def test_an_answer_is_its_own_keys(bundle: Bundle) -> None:
    async with staged(bundle, api_key="one,two") as stage:
        stage.will_say("Hi")
        mine, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        body = (await stage.http.post(URL, json={"input": "?"}, headers=mine)).json()
        path = f"{URL}/{body['id']}"
        assert (await stage.http.get(path, headers=mine)).status_code == 200
        assert (await stage.http.get(path, headers=other)).status_code == 404
        assert (await stage.http.delete(path, headers=other)).status_code == 404
        asked = {"input": "?", "previous_response_id": body["id"]}
        assert (await stage.http.post(URL, json=asked, headers=other)).status_code == 404
        assert (await stage.http.post(URL, json=asked, headers=mine)).status_code == 200


async def test_input_tokens_are_counted_with_images(stage: Stage) -> None:
    asked: Any = [message([{"type": "input_text", "text": "What?"}, image()])]
    count = await stage.openai.responses.input_tokens.count(model="test", input=asked)
    answer = await stage.openai.responses.create(model="test", input=asked)
    assert answer.usage is not None
    assert count.input_tokens == answer.usage.input_tokens


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background", True),
        ("conversation", "conv_1"),
        ("prompt", {"id": "pmpt_1"}),
        ("truncation", "beginning"),
        ("context_management", [{"type": "compaction"}]),
        ("tools[0]", [{"type": "web_search"}]),
        ("include", ["everything"]),
        ("text.verbosity", {"verbosity": "low"}),
        ("stream_options", {"include_obfuscation": False}),
        ("input", None),
        ("input[0]", [{"type": "computer_call", "id": "x"}]),
        ("input[0].content[0]", [message([{"type": "input_audio", "data": ""}])]),
        (
            "input[0].content[0]",
            [message([{"type": "input_file", "file_data": "JVBERi0xLjcK/w=="}])],
        ),
        ("input[0].id", [{"type": "item_reference", "id": "msg_gone"}]),
    ],
)
async def test_what_is_not_done_is_refused_by_name(stage: Stage, field: str, value: Any) -> None:
    asked = {"input": "Hello?", field.partition("[")[0].partition(".")[0]: value}
    answer = await stage.http.post(URL, json=asked)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field
    assert stage.decoder.starts == []


async def test_what_changes_nothing_is_taken(stage: Stage) -> None:
    asked = {
        "input": "Hello?",
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "max_tool_calls": 3,
        "truncation": "disabled",
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "background": False,
        "conversation": None,
    }
    assert (await stage.http.post(URL, json=asked)).status_code == 200


async def test_leaving_a_stream_ends_the_work(stage: Stage) -> None:
    stage.decoder.stall_after = 1
    async with stage.http.stream("POST", URL, json={"input": "?", "stream": True}) as answer:
        await anext(answer.aiter_lines())
    await stage.decoder.cancelled.wait()
