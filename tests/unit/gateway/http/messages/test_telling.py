"""An answer with everything in it, as a Message."""

import anthropic
import pytest

from gateway.answer.events import FinishReason
from gateway.http.messages.telling import MessageTelling
from tests.unit.gateway.http.door.answers import call, end, everything, text, thought, told


def telling(*, max_tokens: int = 12, shows_thoughts: bool = True) -> MessageTelling:
    return MessageTelling(model="test", max_tokens=max_tokens, shows_thoughts=shows_thoughts)


def test_thought_text_and_calls_are_blocks_in_their_order() -> None:
    message = telling()
    told(message, everything())
    body = message.whole()
    anthropic.types.Message.model_validate(body)
    signature = body["content"][0].pop("signature")
    assert signature
    assert body["content"] == [
        {"type": "thinking", "thinking": "Where?"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_0", "name": "get_weather", "input": {"city": "Zürich"}},
        {"type": "tool_use", "id": "call_1", "name": "get_time", "input": {}},
    ]
    assert body["stop_reason"] == "tool_use"


def test_events_add_up_to_the_blocks() -> None:
    message = telling()
    events = told(message, everything())
    for index, block in enumerate(message.whole()["content"]):
        about = [event for event in events if event.get("index") == index]
        kinds = [event["type"] for event in about]
        assert (kinds[0], kinds[-1]) == ("content_block_start", "content_block_stop")
        start = about[0]["content_block"]
        assert start["type"] == block["type"]
        if block["type"] == "tool_use":
            assert start == {**block, "input": {}}
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [delta["type"] for delta in deltas] == [
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "text_delta",
        "text_delta",
        "input_json_delta",
        "input_json_delta",
        "input_json_delta",
    ]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]


def test_a_thought_that_is_not_to_be_shown_leaves_its_block() -> None:
    message = telling(shows_thoughts=False)
    events = told(message, [thought("Hm."), text("Yes."), end()])
    first, second = message.whole()["content"]
    assert (first["thinking"], second["text"]) == ("", "Yes.")
    assert not [event for event in events if "thinking" in event.get("delta", {})]


@pytest.mark.parametrize(
    ("reason", "stop_string", "max_tokens", "expected"),
    [
        (FinishReason.STOP, None, 12, ("end_turn", None)),
        (FinishReason.STOP, "###", 12, ("stop_sequence", "###")),
        (FinishReason.LENGTH, None, 12, ("max_tokens", None)),
        (FinishReason.LENGTH, None, 64_000, ("model_context_window_exceeded", None)),
        (FinishReason.TOOL_CALLS, None, 12, ("tool_use", None)),
    ],
)
def test_the_end_says_why(
    reason: FinishReason,
    stop_string: str | None,
    max_tokens: int,
    expected: tuple[str, str | None],
) -> None:
    message = telling(max_tokens=max_tokens)
    told(message, [text("Yes."), end(reason, stop_string=stop_string)])
    body = message.whole()
    assert (body["stop_reason"], body["stop_sequence"]) == expected


def test_of_a_call_that_is_cut_what_is_complete_is_there() -> None:
    message = telling()
    told(message, [*call(0, "f", '{"a": 1, "b": [2, '), end(FinishReason.LENGTH)])
    assert message.whole()["content"][0]["input"]["a"] == 1
    message = telling()
    told(message, [*call(0, "f", ""), end(FinishReason.LENGTH)])
    assert message.whole()["content"][0]["input"] == {}
