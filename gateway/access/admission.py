"""The gateway's own bounded queue: so many requests, so many bytes, then 429."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from protos.wire.errors import Overloaded, Reason, Unavailable

RETRY_AFTER_S = 1.0


class Admission:
    """Counts requests at work and the bytes of their bodies and of what is fetched for them.

    Nobody waits here: what does not fit is refused at once, because a client that backs off
    costs less than one that is kept waiting with its image in memory.

    Args:
        max_requests: Requests at work.
        max_bytes: Bytes they hold together.
        max_of_tenant: Requests of one tenant; None: as many as of all.
    """

    def __init__(
        self, *, max_requests: int, max_bytes: int, max_of_tenant: int | None = None
    ) -> None:
        self._max_requests = max_requests
        self._max_of_tenant = max_of_tenant or max_requests
        self._tenants: Counter[bytes] = Counter()
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.in_flight = 0
        self.draining = False

    @contextmanager
    def slot(
        self, size_bytes: int, *, tenant: bytes = b"", most: int | None = None
    ) -> Iterator[None]:
        """Holds a place for one request while the block runs.

        Args:
            size_bytes: Of its body.
            tenant: Whose it is; one tenant cannot take every place.
            most: Requests of this tenant, where it has a limit of its own.

        Raises:
            Unavailable: DRAINING, the process takes no new requests.
            Overloaded: the gateway is full.
        """
        if self.draining:
            raise Unavailable(
                "the gateway is draining and takes no new requests",
                reason=Reason.DRAINING,
                retry_after_s=RETRY_AFTER_S,
            )
        if self.in_flight >= self._max_requests:
            raise self._full()
        most = self._max_of_tenant if most is None else most
        if self._tenants[tenant] >= most:
            raise Overloaded(
                f"the gateway is at work on {most} requests of this key, which is"
                " its limit; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        with self.room(size_bytes):
            self._note(tenant, 1)
            try:
                yield
            finally:
                self._note(tenant, -1)

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """Counts bytes that a request holds while the block runs.

        Raises:
            Overloaded: there is no room for them.
        """
        if self.held_bytes + size_bytes > self.max_bytes:
            raise self._full()
        self.held_bytes += size_bytes
        try:
            yield
        finally:
            self.held_bytes -= size_bytes

    def _note(self, tenant: bytes, change: int) -> None:
        self.in_flight += change
        self._tenants[tenant] += change
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _full(self) -> Overloaded:
        return Overloaded(
            f"the gateway is at work on {self.in_flight} requests, at most"
            f" {self._max_requests} are allowed; try again later",
            retry_after_s=RETRY_AFTER_S,
        )
