"""The KV cache's buffers: one per layer and side, one row of tokens (slot) per sequence."""

import mmap
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

KvArray = npt.NDArray[np.generic]

# Named by Python 3.13 and later only.
_NORESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000)


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [slots, kv_heads, max_length, head_dim]."""

    key: KvArray
    value: KvArray


class KvCache:
    """The buffers. Only tokens that have been written take memory, until it is given back.

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
        self._shape = (slot_count, head_count, max_length, head_dim)
        self._item_size = np.dtype(dtype).itemsize
        size = int(np.prod(self._shape)) * self._item_size
        self._maps = [_reserve(size) for _ in range(2 * layer_count)]
        arrays = [np.frombuffer(m, dtype=dtype).reshape(self._shape) for m in self._maps]
        self.layers = [
            LayerCache(key, value) for key, value in zip(arrays[::2], arrays[1::2], strict=True)
        ]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of one slot over those of another."""
        for layer in self.layers:
            for side in layer:
                side[target, :, :length] = side[source, :, :length]

    def swap(self, first: int, second: int, first_length: int, second_length: int) -> None:
        """Exchanges the first tokens of two slots, one layer's side at a time.

        Args:
            first: A slot.
            second: Another.
            first_length: Tokens of `first` that matter.
            second_length: Tokens of `second` that matter.
        """
        for layer in self.layers:
            for side in layer:
                kept = side[second, :, :second_length].copy()
                side[second, :, :first_length] = side[first, :, :first_length]
                side[first, :, :second_length] = kept

    def give_back(self, slot: int, start: int) -> None:
        """Returns the memory of a slot's tokens from `start` on to the system."""
        _, heads, length, width = self._shape
        token = width * self._item_size
        base = slot * heads * length * token
        if start == 0:
            ranges = [(base, base + heads * length * token)]
        else:
            rows = (base + head * length * token for head in range(heads))
            ranges = [(row + start * token, row + length * token) for row in rows]
        page = mmap.PAGESIZE
        for begin, end in ranges:
            first, last = -(-begin // page) * page, end // page * page
            if first < last:
                for memory in self._maps:
                    memory.madvise(mmap.MADV_DONTNEED, first, last - first)


def _reserve(size: int) -> mmap.mmap:
    # Private, because pages of a shared mapping are not given back; without huge pages, because
    # one token per head and layer would then commit 2 MiB each, a whole slot at once.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, size, flags=flags)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
