"""Slots: whose KV lies where.

The graph wants the rows of a decode step as one contiguous range. So decoding sequences always
lie in slots [0, n): a sequence moves to slot n when its prompt is complete, and the last one
fills the hole of one that leaves. The other choice, to run the rows between as idle ones, costs
a matrix row and a read of the row's KV in every step, while a move costs one copy of one
sequence's KV, about half a percent of the time its prefill took. What a move displaces is kept
cache, if it is worth a copy.
"""

from decoder_service.cache.budget import TokenBudget
from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.prefix_cache import Held, Match, PrefixCache
from decoder_service.sequence.sequence import Sequence

SLOTS_PER_SEQUENCE = 3  # why so many: see decoder_service/schedule/residency.py


class Slots:
    """It owns `Sequence.slot`, and sets `kv_length` when a slot is granted.

    Args:
        cache: The buffers.
        token_budget: Most tokens that may take memory; no less than a slot's.
        least_kept: Fewer tokens are neither kept, nor found, nor moved out of the way.

    Attributes:
        prefixes: Finds what the slots hold.
        budget: What they may take of memory.
        decoding_count: Sequences in the decoding range.
    """

    def __init__(self, cache: KvCache, *, token_budget: int, least_kept: int = 16) -> None:
        self.max_length = cache.max_length
        self.decoding_count = 0
        self._cache = cache
        self._held: list[Held | None] = [None] * cache.slot_count
        self.prefixes = PrefixCache(self._held, least_kept)
        self.budget = TokenBudget(cache, self._held, self.prefixes, token_budget)

    @property
    def held(self) -> tuple[Held | None, ...]:
        """What each slot holds."""
        return tuple(self._held)

    def decoding(self) -> list[Sequence]:
        """Decoding sequences in the order of their slots, which is the order of batch rows."""
        owners = (held.sequence for held in self._held[: self.decoding_count] if held is not None)
        return [owner for owner in owners if owner is not None]

    def grant(self, sequence: Sequence, match: Match | None) -> None:
        """Gives a sequence a slot that holds the KV of its match.

        Cached KV is continued where it lies if hardly more than the match would be lost, or if
        it would have to go to make room for a copy; else the match is copied.
        """
        assert sequence.slot is None, "the sequence holds a slot already"
        length = 0
        if match is not None:
            length = match.length
            match.held.used = self.prefixes.tick()
        if match is not None and self._continues(match, sequence):
            match.held.enter(sequence)
            sequence.slot = match.held.slot
        else:
            self._place(sequence, match)
        sequence.kv_length = length
        self.prefixes.unpin(sequence)

    def promote(self, sequence: Sequence) -> None:
        """Moves a sequence to the end of the decoding range."""
        slot, target = sequence.held_slot, self.decoding_count
        assert slot >= target, "the sequence decodes already"
        self._exchange(slot, target)
        self.decoding_count += 1

    def extend(self, sequence: Sequence, length: int) -> None:
        """Notes that KV of a running sequence's first `length` tokens has been written."""
        sequence.kv_length = length
        self.budget.note(sequence.held_slot, length)

    def release(self, sequence: Sequence, length: int) -> None:
        """Takes a sequence's slot, and closes the gap it leaves in the decoding range.

        Args:
            sequence: Holds a slot.
            length: Tokens of its KV that may be kept; 0 when they are not to be trusted.
        """
        slot = sequence.held_slot
        held = self._held[slot]
        assert held is not None and held.sequence is sequence, "the slot is another's"
        self.prefixes.keep(held, length)
        sequence.slot, sequence.kv_length = None, 0
        if slot < self.decoding_count:
            self.decoding_count -= 1
            self._exchange(slot, self.decoding_count)

    def _continues(self, match: Match, sequence: Sequence) -> bool:
        held, length = match
        others = max((n for other, n in held.pins.items() if other is not sequence), default=0)
        if held.sequence is not None or others > length:
            return False
        if held.length - length <= max(self.prefixes.least_kept, length // 16):
            return True
        cached = self.prefixes.cached
        valid = sum(h.length for h in self._held if h is not None)
        can_go = sum(h.length - h.pinned_length for h in cached if h is not held)
        if valid - can_go + length > self.budget.tokens:
            return True
        if valid + length <= self.budget.tokens and None in self._held:
            return False
        removable = [h for h in cached if not {*h.pins} - {sequence}]
        return min(removable, key=lambda h: h.used, default=held) is held

    def _place(self, sequence: Sequence, match: Match | None) -> None:
        """Copies a match, if any, into a slot behind the decoding ones."""
        source = None if match is None else match.held
        slot = self._empty_slot(source)
        self._held[slot] = Held(slot, sequence, self.prefixes.tick())
        sequence.slot = slot
        if match is None or source is None:
            return
        wanted = {slot: match.length}
        if not self.budget.reserve(wanted, protected=source):
            assert source.sequence is None, "granted what does not fit"
            source.shorten(max(match.length, source.pinned_length))
            is_there = self.budget.reserve(wanted, protected=source)
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
            removable = [h for h in self.prefixes.cached if h is not protected and not h.pins]
            self.prefixes.evict(min(removable, key=lambda held: held.used))
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
            self.budget.note(slot, length)
            if held is not None:
                held.slot = slot
                if held.sequence is not None:
                    held.sequence.slot = slot
        self.budget.trim()

    def _worth_moving(self, slot: int) -> Held | None:
        held = self._held[slot]
        if held is None or held.sequence is not None or held.pins:
            return held
        return held if held.length > 2 * self.prefixes.least_kept else None
