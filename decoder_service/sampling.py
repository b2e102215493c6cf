"""Choosing tokens from logits: vectorized over batch rows, never a loop over the vocabulary.

Applied in the order of decoder.proto: logit bias, penalties, the constraint's mask, temperature,
top-k, top-p, min-p. Log-probabilities are of the raw logits, before all of it.
Every reduction runs along one row, so a row's outcome does not depend on its batch mates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Likeliest tokens looked at first when a nucleus is sought; the whole row is sorted only when
# they do not hold enough probability.
_CANDIDATES = 1024

_LOWEST = np.finfo(np.float32).min

# A mask that leaves less than this part of the vocabulary makes it worth to pick out the rest:
# looking for the likeliest among 150,000 equal scores of -inf takes three times as long.
_FEW = 16

# Tokens of one group when a row is searched for its token.
_GROUP = 1024

# Scores worked on at once; a megabyte of float32.
_BLOCK_SCORES = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen; ranges and meanings are those of decoder.proto."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = field(default=())

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether tokens seen before are judged differently."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def has_filters(self) -> bool:
        """Whether unlikely tokens are dropped."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


class Sampler:
    """One sequence's sampling state: its random stream and the tokens it has seen.

    Each sequence draws from a generator of its own, one number per sampled token, so a seed
    gives the same tokens alone and in any batch.

    Args:
        params: How its tokens are chosen.
        prompt_ids: Prompt token ids, shape [S].
        max_tokens: Most tokens `observe` will be told of.
    """

    __slots__ = ("params", "_generator", "_uniform", "_ids", "_counts", "_size", "_places")

    def __init__(
        self, params: SamplingParams, prompt_ids: npt.NDArray[np.int32], max_tokens: int
    ) -> None:
        self.params = params
        seed = None if params.seed is None else params.seed & (2**64 - 1)
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._uniform: float | None = None
        seen = np.empty(0, dtype=np.int64)
        if params.repetition_penalty != 1:
            seen = np.unique(prompt_ids).astype(np.int64)
        capacity = len(seen) + (max_tokens if params.has_penalties else 0)
        self._ids = np.empty(capacity, dtype=np.int64)
        self._ids[: len(seen)] = seen
        self._counts = np.zeros(capacity, dtype=np.float32)
        self._size = len(seen)
        self._places = {int(token): place for place, token in enumerate(seen)}

    @property
    def adjusts(self) -> bool:
        """Whether logits change before the choice."""
        return self.params.has_penalties or bool(self.params.logit_bias)

    def uniform(self) -> float:
        """The random number of the next token, in [0, 1); the same until `observe`."""
        if self._uniform is None:
            self._uniform = self._generator.random()
        return self._uniform

    def observe(self, token_id: int) -> None:
        """Takes note of the token that was chosen; penalties count it from now on."""
        self._uniform = None
        if not self.params.has_penalties:
            return
        place = self._places.setdefault(token_id, self._size)
        if place == self._size:
            self._ids[place] = token_id
            self._size += 1
        self._counts[place] += 1

    def seen(self) -> tuple[IntArray, FloatArray]:
        """Distinct token ids the penalties judge, and how often each is in the output."""
        return self._ids[: self._size], self._counts[: self._size]


class Mask(Protocol):
    """What bans tokens from one row, such as a grammar."""

    def mask(self, scores: FloatArray) -> None:
        """Sets the scores of banned tokens to -inf; float32 [vocab], changed in place."""


class TokenLogprobs(NamedTuple):
    """Log-probabilities at one output position, of the raw logits."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob), likeliest first


def finite_rows(logits: FloatArray) -> npt.NDArray[np.bool_]:
    """Rows a token can be chosen from: no NaN, no +inf, something above -inf.

    Args:
        logits: float32 [R, vocab].

    Returns:
        bool [R].
    """
    peaks = np.take_along_axis(logits, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.isfinite(peaks)  # argmax stops at the first NaN, so a NaN anywhere shows here


def choose(
    logits: FloatArray, samplers: Sequence[Sampler], masks: Sequence[Mask | None] | None = None
) -> IntArray:
    """Chooses one token per row; says nothing to the samplers, so it may be repeated.

    Args:
        logits: float32 [R, vocab], every row finite by `finite_rows`; left as they are.
        samplers: One per row.
        masks: One per row, None for a row that may become anything; None for none at all.

    Returns:
        Token ids, int64 [R].
    """
    masks = masks or [None] * len(samplers)
    tokens: IntArray = logits.argmax(axis=1)
    rest = [
        row
        for row, sampler in enumerate(samplers)
        if sampler.adjusts or not sampler.params.is_greedy or masks[row] is not None
    ]
    for rows in _blocks(rest, logits.shape[1]):
        tokens[rows] = _choose_block(
            logits[rows], [samplers[row] for row in rows], [masks[row] for row in rows]
        )
    return tokens


def _blocks(rows: Sequence[int], vocab: int) -> Iterator[Sequence[int]]:
    # A block's temporaries stay in the cache; those of all rows at once cost three times as
    # much at a vocabulary of 150,000, most of it for fresh pages.
    size = max(1, _BLOCK_SCORES // vocab)
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _choose_block(
    scores: FloatArray, samplers: Sequence[Sampler], masks: Sequence[Mask | None]
) -> IntArray:
    """`choose` for rows that are not plain greedy; `scores` is overwritten."""
    if any(sampler.adjusts for sampler in samplers):
        _adjust(scores, samplers)
    for row, mask in enumerate(masks):
        if mask is not None:
            mask.mask(scores[row])
    tokens: IntArray = scores.argmax(axis=1)
    drawn = [row for row, sampler in enumerate(samplers) if not sampler.params.is_greedy]
    narrow = [row for row in drawn if masks[row] is not None and _leaves_few(scores[row])]
    wide = [row for row in drawn if row not in narrow]
    for rows, draw in ((narrow, _draw_narrow), (wide, _draw)):
        if rows:
            tokens[rows] = draw(scores[rows], [samplers[row] for row in rows])
    return tokens


def _leaves_few(scores: FloatArray) -> bool:
    return int(np.count_nonzero(scores >= _LOWEST)) <= len(scores) // _FEW


def _draw_narrow(scores: FloatArray, samplers: Sequence[Sampler]) -> IntArray:
    """`_draw` among the few tokens that masks have left; the same tokens, without the rest."""
    rows, ids = np.nonzero(scores >= _LOWEST)
    places, starts, width = _packed(rows, len(samplers))
    left = np.full((len(samplers), width), -np.inf, dtype=np.float32)
    left[rows, places] = scores[rows, ids]
    picked: IntArray = ids[starts + _draw(left, samplers)]
    return picked


def _packed(rows: IntArray, row_count: int) -> tuple[IntArray, IntArray, int]:
    """Where entries lie when each row's are moved to its left.

    Args:
        rows: Row of each entry, ascending.
        row_count: Rows, empty ones included.

    Returns:
        The column of each entry, the index of each row's first entry, and the longest row.
    """
    counts = np.bincount(rows, minlength=row_count)
    starts = np.cumsum(counts) - counts
    return np.arange(len(rows)) - starts[rows], starts, int(counts.max())


def logprobs(
    logits: FloatArray, tokens: IntArray, top_counts: Sequence[int]
) -> list[TokenLogprobs]:
    """Log-softmax of raw logits at the chosen tokens and at the likeliest ones.

    Args:
        logits: float32 [R, vocab].
        tokens: Chosen ids, int64 [R].
        top_counts: Likeliest tokens wanted, per row; at most vocab are given.
    """
    return [
        entry
        for rows in _blocks(range(len(tokens)), logits.shape[1])
        for entry in _logprobs_block(logits[rows], tokens[rows], [top_counts[row] for row in rows])
    ]


def _logprobs_block(
    logits: FloatArray, tokens: IntArray, top_counts: Sequence[int]
) -> list[TokenLogprobs]:
    peaks = logits.max(axis=1).astype(np.float64)
    sums = np.exp(logits - peaks[:, None].astype(np.float32)).sum(axis=1, dtype=np.float64)
    normalizers = peaks + np.log(sums)
    chosen = logits[np.arange(len(tokens)), tokens] - normalizers
    widest = min(max(top_counts, default=0), logits.shape[1])
    ids = _likeliest(logits, widest)
    values = np.take_along_axis(logits, ids, axis=1) - normalizers[:, None]
    return [
        TokenLogprobs(
            float(chosen[row]),
            tuple(zip(ids[row, :count].tolist(), values[row, :count].tolist(), strict=True)),
        )
        for row, count in enumerate(top_counts)
    ]


def _likeliest(logits: FloatArray, count: int) -> IntArray:
    rows, vocab = logits.shape
    if count == 0:
        return np.empty((rows, 0), dtype=np.int64)
    ids = np.argpartition(logits, vocab - count, axis=1)[:, vocab - count :]
    ids.sort(axis=1)  # so that the stable sort below puts the lower of two equal ids first
    order = np.argsort(-np.take_along_axis(logits, ids, axis=1), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)


def _adjust(scores: FloatArray, samplers: Sequence[Sampler]) -> None:
    """Logit bias, then penalties, in place; one gather and one scatter each for all rows."""
    biases = [sampler.params.logit_bias for sampler in samplers]
    if any(biases):
        rows = np.repeat(np.arange(len(samplers)), [len(bias) for bias in biases])
        ids = np.array([token for bias in biases for token, _ in bias], dtype=np.int64)
        values = np.array([value for bias in biases for _, value in bias], dtype=np.float32)
        scores[rows, ids] += values
    if not any(sampler.params.has_penalties for sampler in samplers):
        return
    seen = [sampler.seen() for sampler in samplers]
    lengths = [len(ids) for ids, _ in seen]
    rows = np.repeat(np.arange(len(samplers)), lengths)
    ids = np.concatenate([ids for ids, _ in seen])
    counts = np.concatenate([counts for _, counts in seen])
    params = [sampler.params for sampler in samplers]
    repetition = _column([p.repetition_penalty for p in params])[rows]
    presence = _column([p.presence_penalty for p in params])[rows]
    frequency = _column([p.frequency_penalty for p in params])[rows]
    judged = scores[rows, ids]
    judged = np.where(judged > 0, judged / repetition, judged * repetition)
    scores[rows, ids] = judged - presence * (counts > 0) - frequency * counts


def _column(values: Sequence[float]) -> FloatArray:
    return np.array(values, dtype=np.float32)


def _draw(scores: FloatArray, samplers: Sequence[Sampler]) -> IntArray:
    """Draws from softmax(scores / temperature) after the filters; `scores` is overwritten."""
    params = [sampler.params for sampler in samplers]
    uniforms = np.array([sampler.uniform() for sampler in samplers])
    scores -= scores.max(axis=1, keepdims=True)  # first, so that no temperature overflows the peak
    with np.errstate(over="ignore"):  # a far token's score may become -inf: never drawn
        scores /= _column([p.temperature for p in params])[:, None]
    filtered = np.array([p.has_filters for p in params])
    tokens = np.empty(len(params), dtype=np.int64)
    if not filtered.all():
        plain = ~filtered
        tokens[plain] = _invert_whole(np.exp(scores[plain]), uniforms[plain])
    if filtered.any():
        kept = [p for p in params if p.has_filters]
        tokens[filtered] = _draw_filtered(scores[filtered], kept, uniforms[filtered])
    return tokens


def _invert(weights: FloatArray, uniforms: npt.NDArray[np.float64]) -> IntArray:
    """Inverse of each row's cumulative distribution; `weights` need not sum to one."""
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    targets = uniforms * cumulative[:, -1]
    index: IntArray = (cumulative > targets[:, None]).argmax(axis=1)
    return index


def _invert_whole(weights: FloatArray, uniforms: npt.NDArray[np.float64]) -> IntArray:
    """`_invert` over a whole vocabulary: first among sums of groups, then within one.

    A running sum of 150,000 numbers takes several times as long as their sums by groups.
    """
    rows, count = np.arange(len(weights))[:, None], weights.shape[1]
    starts = np.arange(0, count, _GROUP)
    sums = np.add.reduceat(weights, starts, axis=1, dtype=np.float64)
    ends = np.cumsum(sums, axis=1)
    targets = uniforms * ends[:, -1]
    group = (ends > targets[:, None]).argmax(axis=1)[:, None]
    places = starts[group] + np.arange(_GROUP)
    inner = np.where(places < count, weights[rows, np.minimum(places, count - 1)], 0)
    cumulative = np.cumsum(inner, axis=1, dtype=np.float64)
    # Other sums, other rounding: it must not lead out of the group, or to a token of no weight.
    rest = np.maximum(targets[:, None] - (ends - sums)[rows, group], 0)
    rest = np.minimum(rest, np.nextafter(cumulative[:, -1:], 0))
    index: IntArray = starts[group[:, 0]] + (cumulative > rest).argmax(axis=1)
    return index


def _draw_filtered(
    scores: FloatArray, params: Sequence[SamplingParams], uniforms: npt.NDArray[np.float64]
) -> IntArray:
    thresholds = _thresholds(
        scores,
        top_k=np.array([p.top_k for p in params]),
        top_p=np.array([p.top_p for p in params]),
    )
    min_p = np.array([p.min_p for p in params])
    with np.errstate(divide="ignore"):  # log(0) = -inf keeps everything
        thresholds = np.maximum(thresholds, np.log(min_p).astype(np.float32))
    thresholds = np.maximum(thresholds, _LOWEST)  # a masked token, -inf, is never kept
    kept = np.flatnonzero(scores >= thresholds[:, None])  # faster than nonzero by rows
    rows, ids = np.divmod(kept, scores.shape[1])
    places, starts, width = _packed(rows, len(params))
    # Padded on the right: a cumulative sum does not feel the zeros behind it.
    weights = np.zeros((len(params), width), dtype=np.float32)
    weights[rows, places] = np.exp(scores[rows, ids])
    picked: IntArray = ids[starts + _invert(weights, uniforms)]
    return picked


def _thresholds(
    scores: FloatArray, *, top_k: IntArray, top_p: npt.NDArray[np.float64], size: int | None = None
) -> FloatArray:
    """Lowest score each row keeps after top-k and top-p; tokens tied with it are kept too.

    Args:
        scores: float32 [R, vocab], each row's highest is 0.
        top_k: int64 [R]; 0 keeps all.
        top_p: float64 [R].
        size: Likeliest tokens to look at; chosen when None.
    """
    vocab = scores.shape[1]
    limited = (top_k > 0) & (top_k < vocab)
    if size is None:
        size = min(vocab, max(_CANDIDATES, int(top_k[limited].max(initial=0))))
    best = np.partition(scores, vocab - size, axis=1)[:, vocab - size :]
    best = np.sort(best, axis=1)[:, ::-1]
    thresholds = np.full(len(scores), -np.inf, dtype=np.float32)
    thresholds[limited] = best[limited, top_k[limited] - 1]
    nucleus = np.flatnonzero(top_p < 1)
    if not len(nucleus):
        return thresholds
    best = best[nucleus]
    weights = np.exp(best, dtype=np.float64)
    weights[best < thresholds[nucleus, None]] = 0
    cumulative = np.cumsum(weights, axis=1)
    totals = cumulative[:, -1].copy()
    whole = np.flatnonzero(~limited[nucleus]) if size < vocab else np.empty(0, dtype=np.int64)
    totals[whole] = np.exp(scores[nucleus[whole]]).sum(axis=1, dtype=np.float64)
    reached = cumulative >= (top_p[nucleus] * totals)[:, None]
    found = reached.any(axis=1)
    ends = reached.argmax(axis=1)
    thresholds[nucleus[found]] = best[found, ends[found]]
    lost = nucleus[~found]
    if len(lost):  # a flat distribution: only a full sort finds the end of its nucleus
        thresholds[lost] = _thresholds(
            scores[lost], top_k=top_k[lost], top_p=top_p[lost], size=vocab
        )
    return thresholds
