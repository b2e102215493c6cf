"""An answer as a Response: its body, and the events it grows by."""

import time
import uuid
from collections.abc import Callable, Iterator

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerText,
    AnswerThought,
    FinishReason,
)
from gateway.http import sse
from gateway.http.door.logprobs import logprobs
from gateway.http.door.telling import Json
from gateway.http.responses.output import CallItem, MessageItem, OutputItem, ThoughtItem
from gateway.request.conversation import Message, Role, ToolCall
from protos.wire.errors import ServiceError


class ResponseTelling:
    """Tells one answer; its events are numbered as they come.

    Args:
        about: What of the body follows from the request.
        token_bytes: What tokens are spelled like, for log-probabilities; None where they are not
            wanted.
        keep: Called with the body, and the answer as a message, when it is complete.
    """

    content_type = sse.CONTENT_TYPE
    last = sse.DONE

    def __init__(
        self,
        about: Json,
        *,
        token_bytes: TokenBytes | None,
        keep: Callable[[Json, Message], None],
    ) -> None:
        self._token_bytes = token_bytes
        self._keep = keep
        self._hex = uuid.uuid4().hex
        self._body: Json = {
            "id": f"resp_{self._hex}",
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "incomplete_details": None,
            "error": None,
            "output": [],
            "usage": None,
            **about,
        }
        self._events = 0
        self._item: OutputItem | None = None  # the one that grows
        self._closed: list[OutputItem] = []

    def begin(self) -> Iterator[Json]:
        """The response, twice: clients wait for either event."""
        yield from self._numbered(self._snapshot("created"), self._snapshot("in_progress"))

    def add(self, event: AnswerEvent) -> Iterator[Json]:
        """The events of one event of the answer."""
        if isinstance(event, AnswerThought):
            if event.text:
                yield from self._thought(event)
        elif isinstance(event, AnswerText):
            if event.text or (self._token_bytes is not None and event.tokens):
                yield from self._text(event)
        elif isinstance(event, AnswerCall):
            yield from self._call(event)
        else:
            yield from self._end(event)

    def failed(self, error: ServiceError) -> Iterator[Json]:
        """The response as far as it came, with the error; nothing of it is kept."""
        yield from self._close("incomplete")
        self._body["status"] = "failed"
        self._body["error"] = {"code": error.kind.openai_code, "message": error.message}
        yield from self._numbered(self._snapshot("failed"))

    def whole(self) -> Json:
        """The response as it is now."""
        return dict(self._body, output=list(self._body["output"]))

    def encode(self, value: Json) -> bytes:
        """An event by its name."""
        return sse.named(value["type"], value)

    def _thought(self, event: AnswerThought) -> Iterator[Json]:
        if not isinstance(self._item, ThoughtItem):
            yield from self._open(ThoughtItem(f"rs_{self._suffix()}", self._index()))
        assert isinstance(self._item, ThoughtItem)
        yield from self._numbered(self._item.grown(event.text))

    def _text(self, event: AnswerText) -> Iterator[Json]:
        if not isinstance(self._item, MessageItem):
            yield from self._open(MessageItem(f"msg_{self._suffix()}", self._index()))
        assert isinstance(self._item, MessageItem)
        found = [] if self._token_bytes is None else logprobs(self._token_bytes, event.tokens)
        yield from self._numbered(self._item.said(event.text, found))

    def _call(self, event: AnswerCall) -> Iterator[Json]:
        if event.name is not None and event.call_id is not None:
            item = CallItem(
                f"fc_{self._suffix()}",
                self._index(),
                call_id=event.call_id,
                function=event.name,
            )
            yield from self._open(item)
        if event.arguments:
            assert isinstance(self._item, CallItem)
            yield from self._numbered(self._item.grown(event.arguments))

    def _end(self, end: AnswerEnd) -> Iterator[Json]:
        if self._index() == 0:  # nothing was said, which is an answer too
            yield from self._open(MessageItem(f"msg_{self._suffix()}", 0))
        is_cut = end.finish_reason is FinishReason.LENGTH
        status = "incomplete" if is_cut else "completed"
        yield from self._close(status)
        self._body["status"] = status
        if is_cut:
            self._body["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._body["completed_at"] = int(time.time())
        self._body["usage"] = usage_of(end)
        self._keep(self.whole(), self._message())
        yield from self._numbered(self._snapshot(status))

    def _message(self) -> Message:
        """The answer as a turn that a later request goes on from."""
        thought, said = "", ""
        calls = list[ToolCall]()
        for item in self._closed:
            if isinstance(item, ThoughtItem):
                thought += item.text
            elif isinstance(item, MessageItem):
                said += item.text
            elif isinstance(item, CallItem):
                calls.append(
                    ToolCall(name=item.function, arguments=item.arguments, call_id=item.call_id)
                )
        return Message(
            role=Role.ASSISTANT,
            content=None if calls and not said else said,
            reasoning=thought or None,
            tool_calls=tuple(calls),
        )

    def _open(self, item: OutputItem) -> Iterator[Json]:
        yield from self._close("completed")
        self._item = item
        yield from self._numbered(*item.opened())

    def _close(self, status: str) -> Iterator[Json]:
        item, self._item = self._item, None
        if item is not None:
            self._body["output"].append(item.item(status))
            self._closed.append(item)
            yield from self._numbered(*item.closed(status))

    def _index(self) -> int:
        return len(self._body["output"]) + (self._item is not None)

    def _suffix(self) -> str:
        """Makes an item's id from the response's, and its own by its place."""
        return f"{self._hex}{self._index():02x}"

    def _snapshot(self, what: str) -> Json:
        return {"type": f"response.{what}", "response": self.whole()}

    def _numbered(self, *events: Json) -> Iterator[Json]:
        for event in events:
            yield {"type": event["type"], "sequence_number": self._events, **event}
            self._events += 1


def usage_of(end: AnswerEnd) -> Json:
    """Token counts of an answer."""
    return {
        "input_tokens": end.prompt_tokens,
        # Writing to the cache is nothing that is counted apart.
        "input_tokens_details": {"cached_tokens": end.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": end.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": end.thought_tokens},
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }
