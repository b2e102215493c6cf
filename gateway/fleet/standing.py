"""Which addresses of a tier are trusted with calls.

An address whose calls fail, or that is slow beyond its peers, is set aside (*ejected*) for a time
that grows with every repetition. Then it is on trial: one call at a time, until one succeeded. Slow
is only who is slow beside others: where all are, as on a busy machine, nobody is ejected. And never
more than half of a tier, nor the last one that is left.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

FIRST_EJECTION_S = 1.0
MOST_EJECTION_S = 60.0
FORGIVEN_AFTER_S = 60.0  # without a fault; the next ejection is a first one again
JITTER = 0.25  # of the time, up and down: gateways do not try all at the same moment
FAULTS_ALLOWED = 1  # in a row, of calls that ended in an error

_REMEMBERED = 5
_SLOW_FACTOR = 8.0  # beyond the median of the peers' medians
SLOW_LOOK_S = 1.0  # a look that takes less is never slow
SLOW_WORD_S = 2.0  # the same for the first message of a call that is answered at once


class Fault(StrEnum):
    """Why an address is set aside."""

    UNAVAILABLE = "unavailable"  # its calls end as if it were not there
    SILENT = "silent"  # a call had no answer when others had long had theirs
    BROKEN = "broken"  # its answers are not as agreed
    SLOW = "slow"  # its looks or first messages take far longer than its peers'


class Trust(StrEnum):
    """What calls an address gets."""

    TRUSTED = "trusted"
    EJECTED = "ejected"  # none, where there are others
    TRIAL = "trial"  # one at a time


@dataclass(slots=True, eq=False)
class Standing:
    """What calls and looks have shown of one address; times are `time.monotonic()` seconds."""

    trust: Trust = Trust.TRUSTED
    ejected_until_s: float = 0.0
    ejections: int = 0  # in a row
    faults: int = 0  # in a row
    fault_s: float = 0.0  # when the last one was
    looks_s: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    words_s: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    look_begun_s: float | None = None  # of the look under way

    def takes(self, calls: int) -> bool:
        """Whether it gets a call like any other, with so many of ours at work there."""
        return self.trust is Trust.TRUSTED or (self.trust is Trust.TRIAL and calls == 0)


class Ejector:
    """Sets addresses of one tier aside and lets them back.

    Args:
        chance: Gives numbers in [0, 1).
    """

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self.ejections: Counter[Fault] = Counter()  # since the start
        self._chance = chance

    def faulted(
        self, standing: Standing, fault: Fault, *, peers: Collection[Standing], now_s: float
    ) -> bool:
        """Notes a fault of a call; returns whether it set the address aside.

        Args:
            standing: Of the address.
            fault: What happened. Silence is enough at once: each call there costs its wait.
            peers: Of the tier's other addresses that serve.
            now_s: The time.
        """
        standing.faults += 1
        standing.fault_s = now_s
        at_once = fault is Fault.SILENT or standing.trust is Trust.TRIAL
        if standing.faults <= FAULTS_ALLOWED and not at_once:
            return False
        return self._eject(standing, fault, peers, now_s)

    def succeeded(self, standing: Standing, *, now_s: float) -> None:
        """A call was answered: the end of a trial."""
        standing.faults = 0
        if standing.trust is Trust.TRIAL:
            standing.trust = Trust.TRUSTED
        if now_s - standing.fault_s > FORGIVEN_AFTER_S:
            standing.ejections = 0

    def looked(self, standing: Standing, *, now_s: float) -> None:
        """A look was answered as it should be: what was set aside long enough is on trial."""
        if standing.trust is Trust.EJECTED and now_s >= standing.ejected_until_s:
            standing.trust = Trust.TRIAL

    def judge(self, standings: Sequence[Standing], *, now_s: float) -> list[Standing]:
        """Sets aside who is slow beyond its peers.

        Args:
            standings: Of the tier's addresses that serve.
            now_s: The time.

        Returns:
            Those that were set aside.
        """
        slow = []
        for standing in standings:
            peers = [each for each in standings if each is not standing]
            if standing.trust is not Trust.EJECTED and _is_slow(standing, peers, now_s):
                standing.fault_s = now_s
                if self._eject(standing, Fault.SLOW, peers, now_s):
                    slow.append(standing)
        return slow

    def _eject(
        self, standing: Standing, fault: Fault, peers: Collection[Standing], now_s: float
    ) -> bool:
        if standing.trust is Trust.EJECTED:
            return False
        trusted = sum(peer.trust is Trust.TRUSTED for peer in peers)
        if trusted < len(peers) // 2 + 1:  # at least half of all, this one counted, stay trusted
            return False
        length_s = min(MOST_EJECTION_S, FIRST_EJECTION_S * 2**standing.ejections)
        standing.trust = Trust.EJECTED
        standing.ejected_until_s = now_s + length_s * (1 + JITTER * (2 * self._chance() - 1))
        standing.ejections = min(standing.ejections + 1, 10)
        standing.faults = 0
        standing.looks_s.clear()
        standing.words_s.clear()
        self.ejections[fault] += 1
        return True


def _is_slow(standing: Standing, peers: Sequence[Standing], now_s: float) -> bool:
    begun_s = standing.look_begun_s
    looks = [median(peer.looks_s) for peer in peers if peer.looks_s]
    if begun_s is not None and 2 * _answering(peers, begun_s) >= max(1, len(peers)):
        if now_s - begun_s > max(SLOW_LOOK_S, _SLOW_FACTOR * median(looks)):
            return True
    words = [median(peer.words_s) for peer in peers if len(peer.words_s) == _REMEMBERED]
    return _is_beyond(standing.looks_s, looks, SLOW_LOOK_S) or _is_beyond(
        standing.words_s, words, SLOW_WORD_S
    )


def _answering(peers: Sequence[Standing], since_s: float) -> int:
    """How many peers have answered a look and are owing none that was begun at that time."""
    owing = (peer.look_begun_s is not None and peer.look_begun_s <= since_s for peer in peers)
    return sum(bool(peer.looks_s) and not late for peer, late in zip(peers, owing, strict=True))


def _is_beyond(own: Collection[float], medians: Sequence[float], least_s: float) -> bool:
    if len(own) < _REMEMBERED or not medians:
        return False
    return median(own) > max(least_s, _SLOW_FACTOR * median(medians))
