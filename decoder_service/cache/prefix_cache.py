"""The prefix cache: KV that lies in slots, found again by what it was computed from.

Nothing is set aside for it: what a sequence leaves in its slot stays there as cached KV until the
room is needed, and a running sequence's KV may be copied.
"""

from typing import NamedTuple

from decoder_service.sequence.content import Content, common_prefix
from decoder_service.sequence.sequence import Sequence


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


class PrefixCache:
    """Finds what is held again, and remembers what was promised to whom.

    Args:
        held: What each slot holds; `Slots` changes it.
        least_kept: Fewer tokens than this are not worth being kept, found or copied.
    """

    def __init__(self, held: list[Held | None], least_kept: int) -> None:
        self.least_kept = least_kept
        self._held = held
        self._pinned: dict[Sequence, Held] = {}
        self._uses = 0

    @property
    def cached(self) -> list[Held]:
        """What is held of sequences that have left."""
        return [held for held in self._held if held is not None and held.sequence is None]

    @property
    def token_count(self) -> int:
        """Tokens of cached KV."""
        return sum(held.length for held in self.cached)

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
            if length < self.least_kept and (length == 0 or sequence not in held.pins):
                continue
            rank = (length, held.sequence is None)
            if best is None or rank > (best.length, best.held.sequence is None):
                best = Match(held, length)
        return best

    def pin(self, held: Held, sequence: Sequence, length: int) -> None:
        """Keeps the first `length` tokens until the sequence is granted a slot or unpinned."""
        assert sequence not in self._pinned and 0 < length <= held.length, "no such tokens"
        held.pins[sequence] = length
        self._pinned[sequence] = held

    def pin_own(self, sequence: Sequence, length: int) -> None:
        """Pins KV of a sequence that is about to lose its slot."""
        held = self._held[sequence.held_slot]
        assert held is not None and held.sequence is sequence, "the slot is another's"
        self.pin(held, sequence, length)

    def unpin(self, sequence: Sequence) -> None:
        """Ends a sequence's pin, if it has one."""
        held = self._pinned.pop(sequence, None)
        if held is not None:
            del held.pins[sequence]

    def tick(self) -> int:
        """A moment of use, later than all before."""
        self._uses += 1
        return self._uses

    def keep(self, held: Held, length: int) -> None:
        """What a sequence leaves behind becomes cached KV, if it is worth it.

        Args:
            held: Its sequence is there still.
            length: Tokens of it that may be kept.
        """
        length = max(length, held.pinned_length)
        if length < self.least_kept and not held.pins:
            self._held[held.slot] = None
            return
        held.leave(length)
        held.used = self.tick()
        self._drop_doubles(held)

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

    def least_used(self, protected: Held | None = None) -> Held | None:
        """The cached KV of which something can go and that was of use longest ago."""
        found = [h for h in self.cached if h is not protected and h.pinned_length < h.length]
        return min(found, key=lambda held: held.used, default=None)

    def evict(self, held: Held) -> None:
        """Forgets cached KV as far as nobody must find it again."""
        if held.pins:
            held.shorten(held.pinned_length)
        else:
            self._held[held.slot] = None
