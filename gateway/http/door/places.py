"""What a client calls what errors name, which are written in chat completions' words."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from protos.wire.errors import ServiceError, error_for

_FIELD = re.compile(r"messages\[(\d+)\](?:\.content\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class Place:
    """The path of one message in the client's body, and the paths of its content parts."""

    name: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """A client's words.

    Attributes:
        places: One for each message of the conversation.
        words: Fields of chat completions, and what the client's API calls them; brackets stand
            for any number: "tools[].function" is that of every tool.
    """

    places: tuple[Place, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


@contextmanager
def naming(names: Names) -> Iterator[None]:
    """Runs a block whose errors may be in our words.

    Raises:
        ServiceError: what the block raised, in the client's own words.
    """
    try:
        yield
    except ServiceError as error:
        raise renamed(error, names) from error


def renamed(error: ServiceError, names: Names) -> ServiceError:
    """The same error in the client's own words."""
    if error.param is None:
        return error
    if _FIELD.match(error.param):
        return _with(error, lambda text: _FIELD.sub(partial(_place, names.places), text))
    for ours, theirs in names.words:
        pattern = re.compile(re.escape(ours).replace(r"\[\]", r"\[(\d+)\]"))
        if pattern.match(error.param):
            return _with(error, partial(pattern.sub, theirs.replace("[]", r"[\1]"), count=1))
    return error


def _with(error: ServiceError, write: Callable[[str], str]) -> ServiceError:
    return error_for(
        error.reason,
        write(error.message),
        param=write(error.param or ""),
        retry_after_s=error.retry_after_s,
    )


def _place(places: Sequence[Place], found: re.Match[str]) -> str:
    turn, part = int(found[1]), found[2]
    if turn >= len(places):
        return found[0]
    if part is None:
        return places[turn].name
    parts = places[turn].parts
    return parts[int(part)] if int(part) < len(parts) else places[turn].name
