"""What the KV cache may take of memory, counted in tokens.

There are more slots than sequences may run: the others hold KV that prompts to come may begin
with. What has been written takes memory until it is given back, so `committed` tokens count, not
valid ones.
"""

from collections.abc import Mapping

from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.prefix_cache import Held, PrefixCache


class TokenBudget:
    """Keeps the slots' memory below a number of tokens, at the expense of cached KV.

    Args:
        cache: The buffers.
        held: What each slot holds; `Slots` changes it.
        prefixes: Cached KV, of which the least recently used goes first.
        tokens: Most that may take memory; no less than a slot's.
    """

    def __init__(
        self, cache: KvCache, held: list[Held | None], prefixes: PrefixCache, tokens: int
    ) -> None:
        assert tokens >= cache.max_length, "a slot could not be filled"
        self.tokens = tokens
        self._cache = cache
        self._held = held
        self._prefixes = prefixes
        self._committed = [0] * cache.slot_count
        self._total = 0  # of them

    @property
    def committed(self) -> int:
        """Tokens that take memory."""
        return self._total

    def note(self, slot: int, length: int) -> None:
        """The first `length` tokens of a slot have been written."""
        more = length - self._committed[slot]
        if more > 0:
            self._committed[slot] = length
            self._total += more

    def reserve(self, lengths: Mapping[int, int], protected: Held | None = None) -> bool:
        """Makes room for slots to grow, at the expense of cached KV; False when it cannot.

        Args:
            lengths: Tokens wanted, by slot.
            protected: Cached KV that must stay.
        """
        if self._missing(lengths) > 0:
            self._trim(lengths)
            while self._missing(lengths) > 0:
                victim = self._prefixes.least_used(protected)
                if victim is None:
                    return False
                self._prefixes.evict(victim)
                self._trim(lengths)
        for slot, length in lengths.items():
            self.note(slot, length)
        return True

    def _missing(self, lengths: Mapping[int, int]) -> int:
        """Tokens beyond the budget if slots grew to these lengths; below 0 where there is room."""
        missing, committed = self._total - self.tokens, self._committed
        for slot, length in lengths.items():
            if length > committed[slot]:
                missing += length - committed[slot]
        return missing

    def trim(self) -> None:
        """Gives back what lies behind valid KV, if the budget is passed."""
        if self.committed > self.tokens:
            self._trim({})

    def _trim(self, lengths: Mapping[int, int]) -> None:
        for slot, (held, committed) in enumerate(zip(self._held, self._committed, strict=True)):
            wanted = max(0 if held is None else held.length, lengths.get(slot, 0))
            if committed > wanted:
                self._cache.give_back(slot, wanted)
                self._committed[slot] = wanted
                self._total -= committed - wanted
