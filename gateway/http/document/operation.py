"""One operation of the HTTP door, as the document tells it."""

from dataclasses import dataclass

from pydantic import BaseModel

from gateway.http.document.answers import Error

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        path: With parameters in braces.
        method: HTTP's, in lower case; empty for POST where something is sent, and GET elsewhere.
        body: What is sent.
        answer: What comes back.
        event: What each event of a streamed answer holds; None where nothing is streamed.
        event_type: The media type of a streamed answer.
        error: The body of a failure.
        is_open: Whether it is answered without a key.
        busy_answer: What comes with 503 where that is no error.
    """

    path: str
    summary: str
    answer: type[BaseModel]
    method: str = ""
    body: type[BaseModel] | None = None
    event: type[BaseModel] | None = None
    event_type: str = EVENT_STREAM
    error: type[BaseModel] = Error
    is_open: bool = False
    busy_answer: type[BaseModel] | None = None
