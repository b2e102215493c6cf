"""One operation of the HTTP door, as the document tells it."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from gateway.http.document.answers import Error

EVENT_STREAM = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        path: With parameters in braces.
        method: HTTP's, in lower case; empty for POST where something is sent, and GET elsewhere.
        body: What is sent.
        answer: What comes back.
        answer_types: The media types it comes in.
        event: What each event of a streamed answer holds; None where nothing is streamed.
        event_type: The media type of a streamed answer.
        error: The body of a failure.
        is_open: Whether it is answered without a key.
        busy_answer: What comes with 503 where that is no error.
    """

    path: str
    summary: str
    answer: type[BaseModel]
    answer_types: tuple[str, ...] = (JSON,)
    method: str = ""
    body: type[BaseModel] | None = None
    event: type[BaseModel] | None = None
    event_type: str = EVENT_STREAM
    error: type[BaseModel] = Error
    is_open: bool = False
    busy_answer: type[BaseModel] | None = None

    def failures(self) -> Iterator[tuple[int, str]]:
        """The statuses of its failures, and what each means."""
        yield 400, "The request is at fault; of what, `param` says where that is known"
        if not self.is_open:
            yield 401, "The key is missing or unknown"
        if self.body is not None or "{name}" in self.path:
            yield 404, "Nothing of that name is here"
        if self.event is not None:
            yield 409, "The request's id is that of another one at work"
        if self.body is not None:
            yield 413, "The body, or a text in it, is too large"
            yield 415, "The body's Content-Encoding is not supported"
            yield 429, "This key, or this server, has no room for the request now"
        yield 500, "A fault of this server"
        if self.body is not None:
            yield 503, "A tier is not there, or this server is stopping"
            yield 504, "The time for the request is over"
