"""One log line per request, when it ends."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.answer.events import AnswerEnd
from protos.wire.errors import Reason, ServiceError

logger = logging.getLogger(__name__)

_SERVER_FAULTS = (Reason.INTERNAL, Reason.DATA_LOSS, Reason.MODEL_MISMATCH)


class Record:
    """What is known about a request when it ends; never its text or images."""

    def __init__(self, door: str, request_id: str) -> None:
        self._door = door
        self._request_id = request_id
        self._started_s = time.monotonic()
        self._ends: list[AnswerEnd] = []
        self._failure: Reason | None = None

    def ended(self, end: AnswerEnd) -> None:
        """A choice is complete."""
        self._ends.append(end)

    def failed(self, reason: Reason) -> None:
        """The request ended with an error."""
        self._failure = reason

    def log(self) -> None:
        """Writes the line. A client's own mistake is no warning."""
        first = self._ends[0] if self._ends else None
        outcome = self._failure or (first.finish_reason if first else "unfinished")
        logger.log(
            logging.WARNING if self._failure in _SERVER_FAULTS else logging.INFO,
            "request %s door=%s prompt_tokens=%d completion_tokens=%d cached_tokens=%d"
            " first_token_ms=%.1f total_ms=%.1f outcome=%s",
            self._request_id,
            self._door,
            first.prompt_tokens if first else 0,
            sum(end.completion_tokens for end in self._ends),
            first.cached_tokens if first else 0,
            first.timings.first_token_ms if first else 0.0,
            (time.monotonic() - self._started_s) * 1e3,
            outcome.value if isinstance(outcome, Reason) else outcome,
        )


@contextmanager
def recording(door: str, request_id: str) -> Iterator[Record]:
    """Logs one request when the block is left, however it is left."""
    record = Record(door, request_id)
    try:
        yield record
    except ServiceError as error:
        record.failed(error.reason)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        record.failed(Reason.CANCELLED)
        raise
    except BaseException:
        record.failed(Reason.INTERNAL)
        raise
    finally:
        record.log()
