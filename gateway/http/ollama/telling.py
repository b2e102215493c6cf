"""An answer as Ollama tells it: lines of JSON, of which the last has the figures."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import AnswerEnd, AnswerEvent, AnswerText, AnswerThought
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
        self._said: dict[str, str] = {"content": "", "thinking": ""}
        self._logprobs: list[Json] = []
        self._figures: Json = {}

    def begin(self) -> Iterator[Json]:
        """Nothing: the first line has the first text."""
        yield from ()

    def add(self, event: AnswerEvent) -> Iterator[Json]:
        """The line of one event of the answer, if it says anything."""
        if isinstance(event, AnswerEnd):
            self._figures = self._end(event)
            yield self._line({"content": ""}, **self._figures)
        elif isinstance(event, AnswerThought):
            if event.text:
                self._said["thinking"] += event.text
                yield self._line({"content": "", "thinking": event.text}, done=False)
        elif isinstance(event, AnswerText):
            told = self._told(event)
            if event.text or told:
                self._said["content"] += event.text
                yield self._line({"content": event.text}, **told, done=False)

    def failed(self, error: ServiceError) -> Iterator[Json]:
        """The error, after which nothing comes."""
        yield error_body(error, Api.OLLAMA)

    def whole(self) -> Json:
        """All of the answer in one object."""
        told = {} if self._token_bytes is None else {"logprobs": self._logprobs}
        said = {name: text for name, text in self._said.items() if text or name == "content"}
        return self._line(said, **told, **self._figures)

    def encode(self, value: Json) -> bytes:
        """An object as a line."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _told(self, event: AnswerText) -> Json:
        if self._token_bytes is None or not event.tokens:
            return {}
        found = logprobs(self._token_bytes, event.tokens)
        self._logprobs += found
        return {"logprobs": found}

    def _line(self, said: dict[str, str], **more: object) -> Json:
        shared = {"model": self._model, "created_at": _now()}
        if self._chats:
            return {**shared, "message": {"role": "assistant", **said}, **more}
        thought = {"thinking": said["thinking"]} if "thinking" in said else {}
        return {**shared, "response": said["content"], **thought, **more}

    def _end(self, end: AnswerEnd) -> Json:
        return {
            "done": True,
            "done_reason": end.finish_reason.value,
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
