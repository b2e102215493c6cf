"""The KV cache: one buffer per layer and side, one row (slot) per sequence, and who holds which.

The graph wants the rows of a decode step as one contiguous range. So decoding sequences always
lie in slots [0, n): a sequence is moved to slot n when its prompt is complete, and the last one
fills the hole of one that leaves. The other choice, to run the rows between as idle ones, costs
a matrix row and a read of the row's KV in every step, while a move costs one copy of one
sequence's KV, about half a percent of the time its prefill took; and a new sequence is given
the lowest free slot, so that mostly nothing needs to move at all.
"""

import mmap
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.sequence import Sequence

KvArray = npt.NDArray[np.generic]


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [slots, kv_heads, max_length, head_dim]."""

    key: KvArray
    value: KvArray


class KvCache:
    """The buffers. Memory is committed by the system as rows are first written.

    Args:
        layer_count: Layers of the language model.
        slot_count: Rows.
        head_count: KV heads.
        max_length: Tokens a row holds.
        head_dim: Width of a head.
        dtype: What the graph stores.
    """

    def __init__(
        self,
        *,
        layer_count: int,
        slot_count: int,
        head_count: int,
        max_length: int,
        head_dim: int,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.slot_count = slot_count
        self.max_length = max_length
        shape = (slot_count, head_count, max_length, head_dim)
        self.layers = [
            LayerCache(_buffer(shape, np.dtype(dtype)), _buffer(shape, np.dtype(dtype)))
            for _ in range(layer_count)
        ]

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of one slot over another."""
        for layer in self.layers:
            for side in layer:
                side[target, :, :length] = side[source, :, :length]

    def swap(self, first: int, second: int, length: int) -> None:
        """Exchanges the first `length` tokens of two slots, one layer's side at a time."""
        for layer in self.layers:
            for side in layer:
                kept = side[first, :, :length].copy()
                side[first, :, :length] = side[second, :, :length]
                side[second, :, :length] = kept


def _buffer(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> KvArray:
    # NOTE: not np.empty: it asks for huge pages, and one token per head and layer would then
    # commit 2 MiB each, the whole slot at once for common shapes.
    size = int(np.prod(shape)) * dtype.itemsize
    memory = mmap.mmap(-1, size)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


class Slots:
    """Who holds which slot; decoding sequences hold the first `decoding_count` ones.

    It owns `Sequence.slot` and moves KV in the cache along with it.
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._owners: list[Sequence | None] = [None] * cache.slot_count
        self.decoding_count = 0
        self.free_count = cache.slot_count

    @property
    def owners(self) -> tuple[Sequence | None, ...]:
        """The holder of each slot."""
        return tuple(self._owners)

    def decoding(self) -> list[Sequence]:
        """Decoding sequences in the order of their slots, which is the order of batch rows."""
        return [owner for owner in self._owners[: self.decoding_count] if owner is not None]

    def allocate(self, sequence: Sequence) -> None:
        """Gives a sequence the lowest free slot; there must be one."""
        assert sequence.slot is None, "the sequence holds a slot already"
        self._place(sequence, self._owners.index(None))
        self.free_count -= 1

    def promote(self, sequence: Sequence) -> None:
        """Moves a sequence to the end of the decoding range."""
        slot, target = sequence.slot, self.decoding_count
        assert slot is not None and slot >= target, "the sequence decodes already"
        if slot != target:
            other = self._owners[target]
            if other is None:
                self._cache.move(slot, target, sequence.kv_length)
                self._owners[slot] = None
            else:
                self._cache.swap(slot, target, max(sequence.kv_length, other.kv_length))
                self._place(other, slot)
            self._place(sequence, target)
        self.decoding_count += 1

    def release(self, sequence: Sequence) -> None:
        """Frees a sequence's slot and closes the gap it leaves in the decoding range."""
        slot = sequence.slot
        assert slot is not None and self._owners[slot] is sequence, "the slot was freed before"
        sequence.slot = None
        self._owners[slot] = None
        self.free_count += 1
        if slot >= self.decoding_count:
            return
        self.decoding_count -= 1
        last = self._owners[self.decoding_count]
        if last is not None:  # None: the freed slot was the last one
            self._owners[self.decoding_count] = None
            self._cache.move(self.decoding_count, slot, last.kv_length)
            self._place(last, slot)

    def _place(self, sequence: Sequence, slot: int) -> None:
        self._owners[slot] = sequence
        sequence.slot = slot
