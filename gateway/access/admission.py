"""The gateway's own bounded queue: so many requests, so many bytes, then 429."""

from collections.abc import Iterator
from contextlib import contextmanager

from protos.wire.errors import Overloaded, Reason, Unavailable

RETRY_AFTER_S = 1.0


class Admission:
    """Counts requests at work and the bytes of their bodies and of what is fetched for them.

    Nobody waits here: what does not fit is refused at once, because a client that backs off
    costs less than one that is kept waiting with its image in memory.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._bytes = 0
        self.in_flight = 0
        self.draining = False

    @contextmanager
    def slot(self, size_bytes: int) -> Iterator[None]:
        """Holds a place for one request while the block runs.

        Raises:
            Unavailable: DRAINING, the process is shutting down.
            Overloaded: the gateway is full.
        """
        if self.draining:
            raise Unavailable(
                "the gateway is shutting down",
                reason=Reason.DRAINING,
                retry_after_s=RETRY_AFTER_S,
            )
        if self.in_flight >= self._max_requests:
            raise self._full()
        with self.room(size_bytes):
            self.in_flight += 1
            try:
                yield
            finally:
                self.in_flight -= 1

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """Counts bytes that a request holds while the block runs.

        Raises:
            Overloaded: there is no room for them.
        """
        if self._bytes + size_bytes > self._max_bytes:
            raise self._full()
        self._bytes += size_bytes
        try:
            yield
        finally:
            self._bytes -= size_bytes

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the gateway is at work on {self.in_flight} requests, at most"
            f" {self._max_requests} are allowed; try again later",
            retry_after_s=RETRY_AFTER_S,
        )
