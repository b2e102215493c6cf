"""An answer as a Message: its body, and the events it grows by."""

import uuid
from collections.abc import Iterator

from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerThought,
    FinishReason,
)
from gateway.http import sse
from gateway.http.door.arguments import arguments_of
from gateway.http.door.telling import Json
from gateway.http.errors import Api, error_body
from protos.wire.errors import ServiceError

_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
}


class MessageTelling:
    """Tells one answer, block by block.

    Args:
        model: The served model's name.
        max_tokens: Most tokens of the answer; one with fewer that is cut reached the window's end.
        shows_thoughts: Whether the text of thoughts is told; their blocks are there anyway.
    """

    content_type = sse.CONTENT_TYPE
    last = b""  # message_stop is the end

    def __init__(self, *, model: str, max_tokens: int, shows_thoughts: bool) -> None:
        self._max_tokens = max_tokens
        self._shows_thoughts = shows_thoughts
        self._id = uuid.uuid4().hex
        self._body: Json = {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(0, 0, 0),  # known when the answer is complete
        }
        self._block: Json | None = None  # the one that grows
        self._arguments = ""  # of the call that grows

    def begin(self) -> Iterator[Json]:
        """The message without content."""
        yield {"type": "message_start", "message": self.whole()}
        yield {"type": "ping"}

    def add(self, event: AnswerEvent) -> Iterator[Json]:
        """The events of one event of the answer."""
        if isinstance(event, AnswerEnd):
            yield from self._end(event)
        elif isinstance(event, AnswerThought):
            if event.text:
                yield from self._grow("thinking", event.text if self._shows_thoughts else "")
        elif isinstance(event, AnswerCall):
            yield from self._call(event)
        elif event.text:
            yield from self._grow("text", event.text)

    def failed(self, error: ServiceError) -> Iterator[Json]:
        """The error, after which nothing comes."""
        yield error_body(error, Api.ANTHROPIC)

    def whole(self) -> Json:
        """The message as it is now."""
        return dict(self._body, content=list(self._body["content"]))

    def encode(self, value: Json) -> bytes:
        """An event by its name."""
        return sse.named(value["type"], value)

    def _grow(self, kind: str, text: str) -> Iterator[Json]:
        if self._block is None or self._block["type"] != kind:
            yield from self._close()
            self._block = {"type": kind, kind: ""}
            if kind == "thinking":
                self._block["signature"] = ""
            yield self._about_block("start", content_block=dict(self._block))
        assert self._block is not None
        self._block[kind] += text
        if text:
            yield self._about_block("delta", delta={"type": f"{kind}_delta", kind: text})

    def _call(self, event: AnswerCall) -> Iterator[Json]:
        if event.name is not None:
            yield from self._close()
            self._block = {
                "type": "tool_use",
                "id": event.call_id,
                "name": event.name,
                "input": {},
            }
            self._arguments = ""
            yield self._about_block("start", content_block=dict(self._block))
        if event.arguments:
            self._arguments += event.arguments
            delta = {"type": "input_json_delta", "partial_json": event.arguments}
            yield self._about_block("delta", delta=delta)

    def _close(self) -> Iterator[Json]:
        block, self._block = self._block, None
        if block is None:
            return
        if block["type"] == "thinking":
            # Clients send thoughts back only with one; it proves nothing here.
            block["signature"] = self._id
            yield self._about_block(
                "delta", delta={"type": "signature_delta", "signature": self._id}
            )
        if block["type"] == "tool_use":
            block["input"] = arguments_of(self._arguments)
        yield self._about_block("stop")
        self._body["content"].append(block)

    def _about_block(self, what: str, **more: Json) -> Json:
        index = len(self._body["content"])
        return {"type": f"content_block_{what}", "index": index, **more}

    def _end(self, end: AnswerEnd) -> Iterator[Json]:
        yield from self._close()
        stop = {"stop_reason": self._stop_reason(end), "stop_sequence": end.stop_string}
        usage = _usage(
            end.prompt_tokens - end.cached_tokens, end.cached_tokens, end.completion_tokens
        )
        self._body |= {**stop, "usage": usage}
        yield {"type": "message_delta", "delta": stop, "usage": usage}
        yield {"type": "message_stop"}

    def _stop_reason(self, end: AnswerEnd) -> str:
        if end.stop_string is not None:
            return "stop_sequence"
        is_cut = end.finish_reason is FinishReason.LENGTH
        if is_cut and end.completion_tokens < self._max_tokens:
            return "model_context_window_exceeded"
        return _STOP_REASONS[end.finish_reason]


def _usage(new: int, cached: int, generated: int) -> Json:
    """Token counts; those of the prompt that were cached count apart."""
    return {
        "input_tokens": new,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    }
