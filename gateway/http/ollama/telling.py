"""An answer as Ollama tells it: lines of JSON, of which the last has the figures."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerText,
    AnswerThought,
    FinishReason,
)
from gateway.http.door.arguments import arguments_of
from gateway.http.door.logprobs import logprobs
from gateway.http.door.telling import Json
from gateway.http.errors import Api, error_body
from protos.wire.errors import ServiceError

CONTENT_TYPE = "application/x-ndjson"
_NS_PER_MS = 1_000_000


class OllamaTelling:
    """Tells one answer, for both routes: /api/chat has a message, /api/generate a response.

    Args:
        model: The name the client asked for.
        chats: Whether it is told as a message.
        token_bytes: What tokens are spelled like, for log-probabilities; None where they are not
            wanted.
    """

    content_type = CONTENT_TYPE
    last = b""  # the line with `done` is the end

    def __init__(self, *, model: str, chats: bool, token_bytes: TokenBytes | None) -> None:
        self._model = model
        self._chats = chats
        self._token_bytes = token_bytes
        self._begun_ns = time.monotonic_ns()
        self._content = self._thought = ""
        self._calls: list[Json] = []
        self._call: Json | None = None  # the one that grows, its arguments as text
        self._logprobs: list[Json] = []
        self._figures: Json = {}

    def begin(self) -> Iterator[Json]:
        """Nothing: the first line has the first text."""
        yield from ()

    def add(self, event: AnswerEvent) -> Iterator[Json]:
        """The lines of one event of the answer, if it says anything."""
        if not isinstance(event, AnswerCall) or event.name is not None:
            yield from self._called()
        if isinstance(event, AnswerEnd):
            self._figures = self._end(event)
            yield self._line({"content": ""}, **self._figures)
        elif isinstance(event, AnswerThought):
            if event.text:
                self._thought += event.text
                yield self._line({"content": "", "thinking": event.text}, done=False)
        elif isinstance(event, AnswerCall):
            self._hear(event)
        else:
            told = self._told(event)
            if event.text or told:
                self._content += event.text
                yield self._line({"content": event.text}, **told, done=False)

    def failed(self, error: ServiceError) -> Iterator[Json]:
        """The error, after which nothing comes."""
        yield error_body(error, Api.OLLAMA)

    def whole(self) -> Json:
        """All of the answer in one object."""
        told = {} if self._token_bytes is None else {"logprobs": self._logprobs}
        said: Json = {"content": self._content}
        if self._thought:
            said["thinking"] = self._thought
        if self._calls:
            said["tool_calls"] = self._calls
        return self._line(said, **told, **self._figures)

    def encode(self, value: Json) -> bytes:
        """An object as a line."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _hear(self, event: AnswerCall) -> None:
        if event.name is not None:
            self._call = {"id": event.call_id, "name": event.name, "arguments": ""}
        if self._call is not None:
            self._call["arguments"] += event.arguments

    def _called(self) -> Iterator[Json]:
        """The line of a call that is complete: Ollama's calls come whole."""
        call, self._call = self._call, None
        if call is None:
            return
        function = {
            "index": len(self._calls),
            "name": call["name"],
            "arguments": arguments_of(call["arguments"]),
        }
        told = {"id": call["id"], "function": function}
        self._calls.append(told)
        yield self._line({"content": "", "tool_calls": [told]}, done=False)

    def _told(self, event: AnswerText) -> Json:
        if self._token_bytes is None or not event.tokens:
            return {}
        found = logprobs(self._token_bytes, event.tokens)
        self._logprobs += found
        return {"logprobs": found}

    def _line(self, said: Json, **more: object) -> Json:
        shared = {"model": self._model, "created_at": _now()}
        if self._chats:
            return {**shared, "message": {"role": "assistant", **said}, **more}
        thought = {"thinking": said["thinking"]} if "thinking" in said else {}
        return {**shared, "response": said["content"], **thought, **more}

    def _end(self, end: AnswerEnd) -> Json:
        return {
            "done": True,
            "done_reason": "length" if end.finish_reason is FinishReason.LENGTH else "stop",
            "total_duration": time.monotonic_ns() - self._begun_ns,
            "load_duration": 0,
            "prompt_eval_count": end.prompt_tokens,
            "prompt_eval_duration": round(end.timings.prefill_ms * _NS_PER_MS),
            "eval_count": end.completion_tokens,
            "eval_duration": round(end.timings.decode_ms * _NS_PER_MS),
        }


def loaded(model: str, *, chats: bool) -> Json:
    """The answer to no question, which clients ask to have a model loaded: it always is."""
    said: Json = {"message": {"role": "assistant", "content": ""}} if chats else {"response": ""}
    end = {"done": True, "done_reason": "load"}
    return {"model": model, "created_at": _now(), **said, **end}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
