"""What changes logits before a choice: the bias, and what was seen before."""

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.parameters import SamplingParams

FloatArray = npt.NDArray[np.float32]


class Penalties:
    """One sequence's logit bias and penalties, and the tokens they judge.

    Args:
        params: Which they are.
        prompt_ids: Prompt token ids, shape [S].
        max_tokens: Most tokens `observe` will be told of.
    """

    __slots__ = ("_params", "_biased_ids", "_biases", "_ids", "_counts", "_size", "_places")

    def __init__(
        self, params: SamplingParams, prompt_ids: npt.NDArray[np.int32], max_tokens: int
    ) -> None:
        self._params = params
        self._biased_ids = np.array([token for token, _ in params.logit_bias], dtype=np.int64)
        self._biases = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)
        seen = np.empty(0, dtype=np.int64)
        if params.repetition_penalty != 1:
            seen = np.unique(prompt_ids).astype(np.int64)
        # The first `_size` entries: distinct tokens, and how often each is in the output.
        capacity = len(seen) + (max_tokens if params.has_penalties else 0)
        self._ids = np.empty(capacity, dtype=np.int64)
        self._ids[: len(seen)] = seen
        self._counts = np.zeros(capacity, dtype=np.float32)
        self._size = len(seen)
        self._places = {int(token): place for place, token in enumerate(seen)}

    @property
    def is_active(self) -> bool:
        """Whether logits change."""
        return self._params.has_penalties or len(self._biases) > 0

    def observe(self, token_id: int) -> None:
        """Takes note of a token of the output; it counts from now on."""
        if not self._params.has_penalties:
            return
        place = self._places.setdefault(token_id, self._size)
        if place == self._size:
            self._ids[place] = token_id
            self._size += 1
        self._counts[place] += 1

    def apply(self, scores: FloatArray) -> None:
        """Bias first, then penalties; float32 [vocab], changed in place."""
        scores[self._biased_ids] += self._biases
        if not self._size:
            return
        params = self._params
        ids, counts = self._ids[: self._size], self._counts[: self._size]
        judged = scores[ids]
        repetition = np.float32(params.repetition_penalty)
        judged = np.where(judged > 0, judged / repetition, judged * repetition)
        judged -= np.float32(params.presence_penalty) * (counts > 0)
        judged -= np.float32(params.frequency_penalty) * counts
        scores[ids] = judged
