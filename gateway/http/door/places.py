"""Where a client wrote what became a message, so that errors name what the client knows."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from protos.wire.errors import ServiceError, error_for

_FIELD = re.compile(r"messages\[(\d+)\](?:\.content\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class Place:
    """The path of one message in the client's body, and the paths of its content parts."""

    name: str
    parts: tuple[str, ...] = ()


@contextmanager
def naming(places: Sequence[Place]) -> Iterator[None]:
    """Runs a block whose errors name messages and parts by number; they leave it renamed.

    Raises:
        ServiceError: what the block raised, in the client's own words.
    """
    try:
        yield
    except ServiceError as error:
        raise renamed(error, places) from error


def renamed(error: ServiceError, places: Sequence[Place]) -> ServiceError:
    """The same error in the client's own words."""
    if error.param is None or not _FIELD.match(error.param):
        return error
    return error_for(
        error.reason,
        _written(error.message, places),
        param=_written(error.param, places),
        retry_after_s=error.retry_after_s,
    )


def _written(text: str, places: Sequence[Place]) -> str:
    def place(found: re.Match[str]) -> str:
        turn, part = int(found[1]), found[2]
        if turn >= len(places):
            return found[0]
        if part is None:
            return places[turn].name
        parts = places[turn].parts
        return parts[int(part)] if int(part) < len(parts) else places[turn].name

    return _FIELD.sub(place, text)
