"""Answers as their events, for what tells them."""

from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerText,
    AnswerThought,
    FinishReason,
)
from gateway.http.door.telling import Json, Telling
from protos.tandem.v1 import gateway_pb2

ARGUMENTS = '{"city": "Zürich"}'


def thought(text: str) -> AnswerThought:
    """Some of a thought."""
    return AnswerThought(text=text, tokens=())


def text(said: str) -> AnswerText:
    """Some of a text."""
    return AnswerText(text=said, tokens=())


def call(index: int, name: str, *arguments: str) -> list[AnswerCall]:
    """A call, its arguments in pieces."""
    first = AnswerCall(
        index=index, call_id=f"call_{index}", name=name, arguments=arguments[0], tokens=()
    )
    return [first, *(AnswerCall(index=index, arguments=more, tokens=()) for more in arguments[1:])]


def end(reason: FinishReason = FinishReason.STOP, *, stop_string: str | None = None) -> AnswerEnd:
    """The end of an answer of 12 tokens, 5 of them a thought, after a prompt of 30."""
    return AnswerEnd(
        finish_reason=reason,
        prompt_tokens=30,
        completion_tokens=12,
        cached_tokens=10,
        thought_tokens=5,
        stop_string=stop_string,
        timings=gateway_pb2.ChatTimings(),
    )


def everything() -> list[AnswerEvent]:
    """A thought, a text and two calls."""
    return [
        thought(""),
        thought("Where"),
        thought("?"),
        text("I "),
        text("look."),
        *call(0, "get_weather", "", '{"city": ', '"Zürich"}'),
        *call(1, "get_time", "{}"),
        end(FinishReason.TOOL_CALLS),
    ]


def told(telling: Telling, events: list[AnswerEvent]) -> list[Json]:
    """All a stream says."""
    said = list(telling.begin())
    for event in events:
        said.extend(telling.add(event))
    return said
