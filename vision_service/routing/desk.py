"""Where a front and Serve's request router meet: images that wait, and what is known of replicas.

Serve makes its router itself, in a thread of its own, so the two share this object by importing it.
Numbers and tables only, under one lock that is never held for long.
"""

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from vision_service.scaling.cost import Work
from vision_service.scaling.placement import Board, Report, in_order

STALE_S = 5.0  # ten reports late: hung, stopped, or a controller that does not pass reports on
SUSPECT_S = 1.5  # three reports late, and an image overdue

# A replica that has stopped reporting has this time for an image, from when it was sent there.
_STALE_FACTOR, _STALE_LEAST_S = 3.0, 2.0
# One that reports is alive; its image is late because work is, and moving it would only add some.
# Only far beyond every error of prediction is it taken for stuck.
_ALIVE_FACTOR, _ALIVE_LEAST_S = 8.0, 10.0


class Verdict(Enum):
    """What became of an image that waits."""

    ABSENT = "no replica is there"
    HUNG = "its replica does not answer"


@dataclass(slots=True, kw_only=True)
class Ticket:
    """One call for one image.

    Attributes:
        number: Its own among all of this front.
        work: What the image costs, as far as it is known.
        avoid: Replicas that failed it before.
        asked_s: When it began to wait.
        replica: Where it was sent; None: nowhere yet.
        sent_s: When.
        predicted_s: In how long it should have been done there.
    """

    number: int
    work: Work
    avoid: frozenset[str]
    asked_s: float
    replica: str | None = None
    sent_s: float = 0.0
    predicted_s: float = 0.0


class Desk:
    """All that a front knows of its calls; methods may be called in any thread.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.front = secrets.token_hex(4)
        self._clock = clock
        self._lock = threading.Lock()
        self._board: Board[str] = Board(self.front, stale_s=STALE_S, suspect_s=SUSPECT_S)
        self._tickets: dict[int, Ticket] = {}
        self._last_number = 0
        self._there: frozenset[str] | None = None  # None until Serve has said so
        self._empty_since_s = 0.0

    def open(self, work: Work, avoid: Iterable[str] = ()) -> Ticket:
        """Begins a call; `close` ends it."""
        with self._lock:
            self._last_number += 1
            ticket = Ticket(
                number=self._last_number,
                work=work,
                avoid=frozenset(avoid),
                asked_s=self._clock(),
            )
            self._tickets[ticket.number] = ticket
            return ticket

    def close(self, ticket: Ticket) -> None:
        """Nobody waits for the call any more."""
        with self._lock:
            del self._tickets[ticket.number]
            self._board.done(ticket.number)

    def replicas(self, there: Collection[str]) -> None:
        """Serve's list of running replicas, whenever it changes."""
        now_s = self._clock()
        with self._lock:
            if not there and self._there != frozenset():
                self._empty_since_s = now_s
            self._there = frozenset(there)
            self._board.keep(there, now_s)

    def heard(self, replica: str, report: Report | None) -> None:
        """A replica's latest report, as Serve passes it on."""
        with self._lock:
            self._board.heard(replica, report, self._clock())

    def choose(self, number: int, *, ahead_s: float) -> list[str] | None:
        """Where a call may go now, and notes that it goes to the first; see `in_order`."""
        with self._lock:
            ticket = self._tickets.get(number)
            if ticket is None:
                return None
            outlooks = self._board.outlooks(self._clock())
            order = in_order(outlooks, ticket.work, avoid=ticket.avoid, ahead_s=ahead_s)
            if order:
                self._send(ticket, order[0])
            return order

    def sent(self, number: int, replica: str) -> None:
        """A call went to a replica, perhaps another one than was first in order."""
        with self._lock:
            ticket = self._tickets.get(number)
            if ticket is not None and ticket.replica != replica:
                self._send(ticket, replica)

    def verdict(self, ticket: Ticket, *, tier_wait_s: float) -> Verdict | None:
        """Whether there is no use in waiting on.

        Args:
            ticket: The call.
            tier_wait_s: How long it may wait while there is no replica at all.
        """
        now_s = self._clock()
        with self._lock:
            if self._there is not None and not self._there:
                waited_s = now_s - max(ticket.asked_s, self._empty_since_s)
                return Verdict.ABSENT if waited_s >= tier_wait_s else None
            if ticket.replica is not None and now_s - ticket.sent_s > self._limit_s(ticket, now_s):
                return Verdict.HUNG
            return None

    def _send(self, ticket: Ticket, replica: str) -> None:
        now_s = self._clock()
        ticket.replica, ticket.sent_s = replica, now_s
        ticket.predicted_s = self._board.sent(ticket.number, replica, ticket.work, now_s)

    def _limit_s(self, ticket: Ticket, now_s: float) -> float:
        """How long a replica may take for an image; for ever where no other one could take it."""
        others = [one for one in self._there or () if one != ticket.replica]
        if not any(not self._board.is_stale(one, now_s) for one in others):
            # Nobody else reports: Serve's controller may be the one that hangs, not the replicas.
            return _ALIVE_LEAST_S + _ALIVE_FACTOR * ticket.predicted_s if others else float("inf")
        if ticket.replica is not None and self._board.is_stale(ticket.replica, now_s):
            return _STALE_LEAST_S + _STALE_FACTOR * ticket.predicted_s
        return _ALIVE_LEAST_S + _ALIVE_FACTOR * ticket.predicted_s


# Of this process: there is one front in it, and one deployment that it calls.
DESK = Desk()
