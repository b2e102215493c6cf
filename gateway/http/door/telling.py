"""What an API has to say of one answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.answer.events import AnswerEvent
from gateway.http.door.places import Names
from gateway.request.conversation import Conversation
from gateway.request.job import Question
from protos.wire.errors import ServiceError

Json = dict[str, Any]


class Telling(Protocol):
    """One answer in an API's own words: the objects of its stream, and the whole it becomes.

    `begin` comes first and once, `add` takes every event of the answer in its order, and `whole`
    is complete when the last one, an `AnswerEnd`, was taken. `failed` ends a stream instead.
    """

    content_type: str
    last: bytes  # ends a stream that is complete

    def begin(self) -> Iterable[Json]:
        """What a stream says before anything of the answer is there."""

    def add(self, event: AnswerEvent) -> Iterable[Json]:
        """What a stream says of one event."""

    def failed(self, error: ServiceError) -> Iterable[Json]:
        """What a stream says last when the answer failed midway."""

    def whole(self) -> Json:
        """The body of an answer that is not streamed."""

    def encode(self, value: Json) -> bytes:
        """An object of the stream as it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A body as it was understood.

    Attributes:
        names: The client's words for what errors name.
        may_lose_turns: Whether the first turns may be left out where all do not fit.
    """

    question: Question
    telling: Telling
    names: Names
    may_lose_turns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A conversation whose tokens are to be counted; `names` as in `Asked`."""

    model: str
    conversation: Conversation
    names: Names
