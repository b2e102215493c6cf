"""Slots: whose KV lies where, what is kept of those that ended, and what makes room.

The graph wants the rows of a decode step as one contiguous range. So decoding sequences always
lie in slots [0, n): a sequence moves to slot n when its prompt is complete, and the last one
fills the hole of one that leaves. The other choice, to run the rows between as idle ones, costs
a matrix row and a read of the row's KV in every step, while a move costs one copy of one
sequence's KV, about half a percent of the time its prefill took. What a move displaces is kept
cache, if it is worth a copy.

There are more slots than sequences may run: the others hold KV that prompts to come may begin
with. Memory is bounded in tokens, not in slots: what has been written takes memory until it is
given back, so `committed` tokens count, not valid ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

from decoder_service.cache.kv_cache import KvCache
from decoder_service.sequence.content import Content, common_prefix
from decoder_service.sequence.sequence import Sequence

SLOTS_PER_SEQUENCE = 3  # why so many: see decoder_service/schedule/residency.py


class Held:
    """What one slot holds: the KV of a running sequence, or of one that had the slot.

    Attributes:
        slot: Where it lies now.
        sequence: Who writes it; None for cached KV.
        pins: Sequences that must find so many of its tokens again.
        used: When it was of use last; grows.
    """

    __slots__ = ("slot", "sequence", "pins", "used", "_content")

    def __init__(self, slot: int, sequence: Sequence, used: int) -> None:
        self.slot = slot
        self.sequence: Sequence | None = sequence
        self.pins: dict[Sequence, int] = {}
        self.used = used
        self._content: Content | None = None

    @property
    def content(self) -> Content:
        """What its KV was computed from."""
        if self.sequence is not None:
            return self.sequence.content(self.sequence.kv_length)
        assert self._content is not None, "set when its sequence left"
        return self._content

    @property
    def length(self) -> int:
        """Tokens of KV."""
        return self.content.length if self.sequence is None else self.sequence.kv_length

    @property
    def pinned_length(self) -> int:
        """Tokens that somebody must find again."""
        return max(self.pins.values(), default=0)

    def leave(self, length: int) -> None:
        """Its sequence goes; the first `length` tokens stay."""
        assert self.sequence is not None, "nobody is there"
        self._content, self.sequence = self.sequence.content(length).first(length), None

    def shorten(self, length: int) -> None:
        """Forgets the tokens of cached KV from `length` on."""
        self._content = self.content.first(length)

    def enter(self, sequence: Sequence) -> None:
        """A sequence goes on where cached KV ends to be its own."""
        self._content, self.sequence = None, sequence


class Match(NamedTuple):
    """The first `length` tokens of what is held are what a sequence begins with."""

    held: Held
    length: int


class Slots:
    """It owns `Sequence.slot`, and sets `kv_length` when a slot is granted.

    Args:
        cache: The buffers.
        token_budget: Most tokens that may take memory; no less than a slot's.
        least_kept: Fewer tokens are neither kept, nor found, nor moved out of the way.
    """

    def __init__(self, cache: KvCache, *, token_budget: int, least_kept: int = 16) -> None:
        assert token_budget >= cache.max_length, "a slot could not be filled"
        self.token_budget = token_budget
        self.max_length = cache.max_length
        self.decoding_count = 0
        self._cache = cache
        self._least_kept = least_kept
        self._held: list[Held | None] = [None] * cache.slot_count
        self._committed = [0] * cache.slot_count
        self._pinned: dict[Sequence, Held] = {}
        self._uses = 0

    # -- Looking -----------------------------------------------------------------------------

    @property
    def held(self) -> tuple[Held | None, ...]:
        """What each slot holds."""
        return tuple(self._held)

    @property
    def committed(self) -> int:
        """Tokens that take memory."""
        return sum(self._committed)

    @property
    def cached_count(self) -> int:
        """Tokens of cached KV."""
        return sum(held.length for held in self._cached())

    def decoding(self) -> list[Sequence]:
        """Decoding sequences in the order of their slots, which is the order of batch rows."""
        owners = (held.sequence for held in self._held[: self.decoding_count] if held is not None)
        return [owner for owner in owners if owner is not None]

    def best_match(self, sequence: Sequence) -> Match | None:
        """The longest known beginning of a sequence's history, the last token left out.

        Cached KV comes before a running sequence's of the same length: it can be continued.
        """
        content = sequence.content(sequence.history_length)
        best: Match | None = None
        for held in self._held:
            if held is None:
                continue
            length = min(content.length - 1, common_prefix(content, held.content))
            if length < self._least_kept and (length == 0 or sequence not in held.pins):
                continue
            rank = (length, held.sequence is None)
            if best is None or rank > (best.length, best.held.sequence is None):
                best = Match(held, length)
        return best

    # -- Pins --------------------------------------------------------------------------------

    def pin(self, held: Held, sequence: Sequence, length: int) -> None:
        """Keeps the first `length` tokens until the sequence is granted a slot or unpinned."""
        assert sequence not in self._pinned and 0 < length <= held.length, "no such tokens"
        held.pins[sequence] = length
        self._pinned[sequence] = held

    def unpin(self, sequence: Sequence) -> None:
        """Ends a sequence's pin, if it has one."""
        held = self._pinned.pop(sequence, None)
        if held is not None:
            del held.pins[sequence]

    # -- Coming and going --------------------------------------------------------------------

    def grant(self, sequence: Sequence, match: Match | None) -> None:
        """Gives a sequence a slot that holds the KV of its match.

        Cached KV is continued where it lies if hardly more than the match would be lost, or if
        it would have to go to make room for a copy; else the match is copied.
        """
        assert sequence.slot is None, "the sequence holds a slot already"
        length = 0
        if match is not None:
            length = match.length
            match.held.used = self._tick()
        if match is not None and self._continues(match, sequence):
            match.held.enter(sequence)
            sequence.slot = match.held.slot
        else:
            self._place(sequence, match)
        sequence.kv_length = length
        self.unpin(sequence)

    def promote(self, sequence: Sequence) -> None:
        """Moves a sequence to the end of the decoding range."""
        slot, target = sequence.slot, self.decoding_count
        assert slot is not None and slot >= target, "the sequence decodes already"
        self._exchange(slot, target)
        self.decoding_count += 1

    def extend(self, sequence: Sequence, length: int) -> None:
        """Notes that KV of a running sequence's first `length` tokens has been written."""
        assert sequence.slot is not None, "it holds no slot"
        sequence.kv_length = length
        self._committed[sequence.slot] = max(self._committed[sequence.slot], length)

    def pin_own(self, sequence: Sequence, length: int) -> None:
        """Pins KV of a sequence that is about to lose its slot."""
        assert sequence.slot is not None, "it holds no slot"
        held = self._held[sequence.slot]
        assert held is not None and held.sequence is sequence, "the slot is another's"
        self.pin(held, sequence, length)

    def release(self, sequence: Sequence, length: int) -> None:
        """Takes a sequence's slot, and closes the gap it leaves in the decoding range.

        Args:
            sequence: Holds a slot.
            length: Tokens of its KV that may be kept; 0 when they are not to be trusted.
        """
        slot = sequence.slot
        assert slot is not None, "the slot was freed before"
        held = self._held[slot]
        assert held is not None and held.sequence is sequence, "the slot is another's"
        length = max(length, held.pinned_length)
        if length >= self._least_kept or held.pins:
            held.leave(length)
            held.used = self._tick()
            self._drop_doubles(held)
        else:
            self._held[slot] = None
        sequence.slot, sequence.kv_length = None, 0
        if slot < self.decoding_count:
            self.decoding_count -= 1
            self._exchange(slot, self.decoding_count)

    # -- Room --------------------------------------------------------------------------------

    def reserve(self, lengths: Mapping[int, int], protected: Held | None = None) -> bool:
        """Makes room for slots to grow, at the expense of cached KV; False when it cannot.

        Args:
            lengths: Tokens wanted, by slot.
            protected: Cached KV that must stay.
        """

        def missing() -> int:
            growth = (max(0, n - self._committed[slot]) for slot, n in lengths.items())
            return sum(growth) + self.committed - self.token_budget

        if missing() > 0:
            self._trim(lengths)
        while missing() > 0:
            victim = self._victim(protected)
            if victim is None:
                return False
            self._evict(victim)
            self._trim(lengths)
        for slot, length in lengths.items():
            self._committed[slot] = max(self._committed[slot], length)
        return True

    def _trim(self, lengths: Mapping[int, int]) -> None:
        """Gives back what lies behind valid KV."""
        for slot, (held, committed) in enumerate(zip(self._held, self._committed, strict=True)):
            wanted = max(0 if held is None else held.length, lengths.get(slot, 0))
            if committed > wanted:
                self._cache.give_back(slot, wanted)
                self._committed[slot] = wanted

    def _victim(self, protected: Held | None) -> Held | None:
        """The least recently used cached KV of which something can go."""
        found = [h for h in self._cached() if h is not protected and h.pinned_length < h.length]
        return min(found, key=lambda held: held.used, default=None)

    def _evict(self, held: Held) -> None:
        if held.pins:
            held.shorten(held.pinned_length)
        else:
            self._held[held.slot] = None

    # -- Inside ------------------------------------------------------------------------------

    def _tick(self) -> int:
        self._uses += 1
        return self._uses

    def _continues(self, match: Match, sequence: Sequence) -> bool:
        held, length = match
        others = max((n for other, n in held.pins.items() if other is not sequence), default=0)
        if held.sequence is not None or others > length:
            return False
        if held.length - length <= max(self._least_kept, length // 16):
            return True
        valid = sum(h.length for h in self._held if h is not None)
        can_go = sum(h.length - h.pinned_length for h in self._cached() if h is not held)
        if valid - can_go + length > self.token_budget:
            return True
        if valid + length <= self.token_budget and None in self._held:
            return False
        removable = [h for h in self._cached() if not {*h.pins} - {sequence}]
        return min(removable, key=lambda h: h.used, default=held) is held

    def _cached(self) -> list[Held]:
        return [held for held in self._held if held is not None and held.sequence is None]

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        """Copies a match, if any, into a slot behind the decoding ones."""
        source = None if match is None else match.held
        slot = self._empty_slot(source)
        self._held[slot] = Held(slot, sequence, self._tick())
        sequence.slot = slot
        if match is None or source is None:
            return
        wanted = {slot: match.length}
        if not self.reserve(wanted, protected=source):
            assert source.sequence is None, "granted what does not fit"
            source.shorten(max(match.length, source.pinned_length))
            is_there = self.reserve(wanted, protected=source)
            assert is_there, "granted what does not fit"
        self._cache.copy(source.slot, slot, match.length)

    def _empty_slot(self, protected: Held | None) -> int:
        """Empties the lowest slot that nobody runs in: it needs no move when decoding begins."""
        lowest = next(
            slot
            for slot, held in enumerate(self._held)
            if slot >= self.decoding_count and (held is None or held.sequence is None)
        )
        if self._held[lowest] is None:
            return lowest
        if None not in self._held:
            removable = [h for h in self._cached() if h is not protected and not h.pins]
            self._evict(min(removable, key=lambda held: held.used))
        self._exchange(lowest, self._held.index(None))
        return lowest

    def _exchange(self, first: int, second: int) -> None:
        """Exchanges two slots, of which neither or both may hold something."""
        if first == second:
            return
        one, other = self._worth_moving(first), self._worth_moving(second)
        lengths = (0 if one is None else one.length, 0 if other is None else other.length)
        if lengths[1] == 0:
            self._cache.copy(first, second, lengths[0])
        elif lengths[0] == 0:
            self._cache.copy(second, first, lengths[1])
        else:
            self._cache.swap(first, second, *lengths)
        for slot, held, length in ((second, one, lengths[0]), (first, other, lengths[1])):
            self._held[slot] = held
            self._committed[slot] = max(self._committed[slot], length)
            if held is not None:
                held.slot = slot
                if held.sequence is not None:
                    held.sequence.slot = slot
        if self.committed > self.token_budget:
            self._trim({})

    def _worth_moving(self, slot: int) -> Held | None:
        held = self._held[slot]
        if held is None or held.sequence is not None or held.pins:
            return held
        return held if held.length > 2 * self._least_kept else None

    def _drop_doubles(self, kept: Held) -> None:
        """Of cached KV that begins alike, the longer one is enough."""
        for held in self._held:
            if held is None or held is kept:
                continue
            common = common_prefix(kept.content, held.content)
            if common == kept.length and not kept.pins:
                self._held[kept.slot] = None
                held.used = max(held.used, kept.used)
                return
            if common == held.length and held.sequence is None and not held.pins:
                self._held[held.slot] = None
