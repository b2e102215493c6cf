"""Sampling against plain, slow references."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.sampling import filters
from decoder_service.sampling.leaders import Leaders
from decoder_service.sampling.logprobs import token_logprobs
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler, invert_by_groups
from tests.support.sampling import choose

FloatArray = npt.NDArray[np.float32]


def sampler(prompt: tuple[int, ...] = (), **params: Any) -> Sampler:
    ids = np.array(prompt, dtype=np.int32)
    return Sampler(SamplingParams(**params), ids, 64)


def random_logits(rows: int, vocab: int, seed: int = 0) -> FloatArray:
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * 3).astype(np.float32)


def kept_by_reference(row: FloatArray, params: SamplingParams) -> set[int]:
    order = sorted(range(len(row)), key=lambda token: -row[token])
    scaled = (row.astype(np.float64) - row.max()) / params.temperature
    if params.top_k:
        order = order[: params.top_k]
    weights = [float(np.exp(scaled[token])) for token in order]
    reached = np.cumsum(weights) >= params.top_p * sum(weights)
    if params.top_p < 1 and reached.any():
        order = order[: int(reached.argmax()) + 1]
    return {token for token in order if np.exp(scaled[token]) >= params.min_p}


def kept(row: FloatArray, params: SamplingParams) -> set[int]:
    tokens = filters.kept(Leaders(row), params)
    return set(range(len(row))) if tokens is None else set(tokens.ids.tolist())


def draw(logits: FloatArray, row: Sampler, count: int) -> list[int]:
    tokens = []
    for _ in range(count):
        tokens.append(int(choose(logits, [row])[0]))
        row.observe(tokens[-1])
    return tokens


def test_temperature_zero_takes_the_likeliest_token() -> None:
    logits = random_logits(5, 300)
    tokens = choose(logits, [sampler(temperature=0.0) for _ in range(5)])
    assert tokens.tolist() == logits.argmax(axis=1).tolist()


def test_top_p_zero_takes_the_likeliest_token() -> None:
    logits = random_logits(5, 3000)
    for also in ({}, {"top_k": 50}, {"min_p": 0.1}, {"temperature": 2.0}):
        tokens = choose(logits, [sampler(top_p=0.0, **also) for _ in range(5)])
        assert tokens.tolist() == logits.argmax(axis=1).tolist()


PARAMS = st.fixed_dictionaries(
    {"temperature": st.floats(0.1, 2)},
    optional={
        "top_k": st.integers(0, 3000),
        "top_p": st.floats(0.05, 0.999),
        "min_p": st.floats(1e-4, 0.5),
    },
)


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**16), vocab=st.integers(2, 50) | st.integers(2000, 4000), given=PARAMS)
def test_filters_keep_what_the_plain_reference_keeps(
    seed: int, vocab: int, given: dict[str, Any]
) -> None:
    row, params = random_logits(1, vocab, seed)[0], SamplingParams(**given)
    # A nucleus, or a bound, that ends within a rounding may take in one token more or less.
    assert len(kept(row, params) ^ kept_by_reference(row, params)) <= 1


def test_filters_keep_exactly_the_references_tokens() -> None:
    row = random_logits(1, 20_000, 3)[0]
    for params in (
        SamplingParams(top_k=20),
        SamplingParams(top_k=19_999, temperature=2.0),
        SamplingParams(top_k=20, top_p=0.8, temperature=0.7),
        SamplingParams(top_p=0.3),
        SamplingParams(top_p=0.95, min_p=0.01),
        SamplingParams(min_p=0.1, temperature=1.5),
    ):
        assert kept(row, params) == kept_by_reference(row, params)


@pytest.mark.parametrize("vocab", [70, 5000])
def test_tokens_tied_with_the_last_one_kept_are_kept(vocab: int) -> None:
    row = np.zeros(vocab, dtype=np.float32)
    row[[5, vocab - 1]] = 2
    row[[1, 40, vocab - 2]] = 1
    assert kept(row, SamplingParams(top_k=3)) == {1, 5, 40, vocab - 2, vocab - 1}
    assert kept(row, SamplingParams(top_k=3, top_p=0.75)) == {1, 5, 40, vocab - 2, vocab - 1}
    assert kept(row, SamplingParams(top_k=3, top_p=0.5)) == {5, vocab - 1}


@pytest.mark.parametrize("top_k", [0, 7])
def test_the_nucleus_of_a_flat_distribution_is_found(top_k: int) -> None:
    row = -np.abs(random_logits(1, 5000, 1)[0]) * np.float32(0.01)
    params = SamplingParams(top_k=top_k, top_p=0.9)
    assert kept(row, params) == kept_by_reference(row, params)
    assert len(kept(row, params)) == 7 or len(kept(row, params)) > 4000


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    vocab=st.integers(1, 3000),
    count=st.integers(1, 3000),
    levels=st.integers(1, 500),
    banned=st.floats(0, 1),
)
def test_leaders_are_the_likeliest_tokens_and_those_tied_with_the_last(
    seed: int, vocab: int, count: int, levels: int, banned: float
) -> None:
    rng = np.random.default_rng(seed)
    row = rng.integers(0, levels, vocab).astype(np.float32)
    row[rng.random(vocab) < banned] = -np.inf
    row[rng.integers(vocab)] = levels
    leaders = Leaders(row)
    last = np.sort(row)[::-1][min(count, vocab) - 1]
    assert leaders.peak == levels
    assert leaders.first(count).ids.tolist() == np.flatnonzero((row >= last) & (row >= 0)).tolist()
    assert leaders.at_least(levels / 2).ids.tolist() == np.flatnonzero(row >= levels / 2).tolist()


def test_min_p_drops_tokens_far_below_the_likeliest() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], dtype=np.float32))
    rows = sampler(min_p=0.5, seed=1)
    drawn = set(draw(logits, rows, 200))
    assert drawn == {0, 1}


@pytest.mark.parametrize("filters", [{}, {"top_k": 4}, {"top_p": 0.999999}, {"min_p": 1e-9}])
def test_drawn_tokens_follow_the_distribution(filters: dict[str, Any]) -> None:
    wanted = np.array([0.4, 0.3, 0.2, 0.1])
    logits = np.log(wanted).astype(np.float32)[None]
    rows = sampler(seed=5, **filters)
    counts = np.bincount(draw(logits, rows, 4000), minlength=4)
    assert np.abs(counts / 4000 - wanted).max() < 0.02


def test_temperature_sharpens_and_flattens() -> None:
    wanted = np.array([0.6, 0.3, 0.1])
    logits = np.log(wanted).astype(np.float32)[None]
    for temperature in (0.5, 2.0):
        rows = sampler(seed=5, temperature=temperature)
        counts = np.bincount(draw(logits, rows, 4000), minlength=3)
        powered = wanted ** (1 / temperature)
        assert np.abs(counts / 4000 - powered / powered.sum()).max() < 0.02


def test_the_smallest_temperature_is_greedy_without_a_warning() -> None:
    logits = random_logits(1, 100)
    assert choose(logits, [sampler(temperature=1e-38, seed=1)])[0] == logits[0].argmax()


MIXED: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    {"temperature": 1.3, "min_p": 0.02, "presence_penalty": 1.0},
    {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.2, "frequency_penalty": 0.3},
    {"temperature": 1.0, "top_k": 1500, "logit_bias": ((3, 5.0), (9, -7.5))},
)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(len(MIXED))), seed=st.integers(-(2**63), 2**63 - 1))
def test_a_seed_gives_the_same_tokens_alone_and_in_any_batch(order: list[int], seed: int) -> None:
    vocab = 2000
    steps = [random_logits(len(MIXED), vocab, step) for step in range(6)]

    def run(rows: list[int]) -> dict[int, list[int]]:
        samplers = [sampler((1, 2, 3), seed=seed, **MIXED[row]) for row in rows]
        tokens: dict[int, list[int]] = {row: [] for row in rows}
        for logits in steps:
            for place, token in enumerate(choose(logits[rows], samplers)):
                samplers[place].observe(int(token))
                tokens[rows[place]].append(int(token))
        return tokens

    together = run(order)
    for row in order:
        assert together[row] == run([row])[row]


def test_unseeded_sequences_differ() -> None:
    logits = np.zeros((1, 5000), dtype=np.float32)
    assert draw(logits, sampler(), 4) != draw(logits, sampler(), 4)


def test_choosing_again_without_taking_the_token_gives_it_again() -> None:
    logits = np.zeros((1, 5000), dtype=np.float32)
    row = sampler(seed=2)
    first, again = choose(logits, [row])[0], choose(logits, [row])[0]
    row.observe(int(first))
    assert first == again != choose(logits, [row])[0]


def test_penalties_and_bias_match_the_written_order() -> None:
    logits = random_logits(2, 12)
    rows = [
        sampler(
            (1, 1, 2),
            temperature=0.0,
            repetition_penalty=1.5,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            logit_bias=((2, 4.0), (7, -3.0)),
        ),
        sampler((5,), temperature=0.0, presence_penalty=-1.0),
    ]
    for token in (3, 3, 2):
        rows[0].observe(token)
    rows[1].observe(6)
    wanted = logits.astype(np.float64).copy()
    wanted[0, 2] += 4
    wanted[0, 7] -= 3
    for token in (1, 2, 3):
        value = wanted[0, token]
        wanted[0, token] = value / 1.5 if value > 0 else value * 1.5
    wanted[0, 3] -= 0.5 + 2 * 0.25
    wanted[0, 2] -= 0.5 + 0.25
    wanted[1, 6] += 1
    before = logits.copy()
    assert choose(logits, rows).tolist() == wanted.argmax(axis=1).tolist()
    assert np.array_equal(logits, before)


def test_repeated_greedy_choices_show_every_penalty() -> None:
    logits = np.array([[3.0, 2.5, 0.0]], dtype=np.float32)
    row = sampler(temperature=0.0, frequency_penalty=0.4)
    assert draw(logits, row, 4) == [0, 0, 1, 0]  # 3.0, 2.6, then 2.2 < 2.5, then 2.2 > 2.1


@pytest.mark.parametrize("count", [0, 3, 20, 400])
def test_logprobs_are_the_log_softmax_of_raw_logits(count: int) -> None:
    logits = random_logits(1, 500)[0]
    found = token_logprobs(logits, 4, count)
    exact = logits.astype(np.float64)
    exact = exact - np.log(np.exp(exact).sum())
    assert found.logprob == pytest.approx(exact[4], abs=1e-5)
    best = np.argsort(-exact)[:count]
    assert [token for token, _ in found.top] == best.tolist()
    assert [value for _, value in found.top] == pytest.approx(exact[best].tolist(), abs=1e-5)


def test_logprobs_of_a_tiny_vocabulary_give_all_of_it() -> None:
    assert len(token_logprobs(random_logits(1, 5)[0], 2, 20).top) == 5


def test_of_equally_likely_tokens_the_first_are_reported() -> None:
    found = token_logprobs(np.zeros(3000, np.float32), 7, 3)
    assert [token for token, _ in found.top] == [0, 1, 2]


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0.0}, {"top_k": 5}, {}, {"presence_penalty": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("vocab", [50, 3000])
@pytest.mark.parametrize("place", [0, 20, 49])
@pytest.mark.parametrize("is_masked", [False, True])
def test_of_logits_that_are_not_finite_no_token_is_chosen(
    params: dict[str, Any], vocab: int, place: int, is_masked: bool
) -> None:
    row = random_logits(1, vocab)[0]
    mask = Only([1, 2, 3]) if is_masked else None
    place -= 50 if place == 49 else 0
    for value in (np.nan, np.inf):
        row[place] = value
        assert sampler(**params).choose(row, mask) is None
    row[place] = -np.inf
    assert sampler(**params).choose(row, mask) is not None
    assert sampler(**params).choose(np.full(vocab, -np.inf, np.float32), mask) is None


class Only:
    """A mask that leaves these tokens."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed = allowed

    def mask(self, scores: FloatArray) -> None:
        kept = scores[self.allowed]
        scores[:] = -np.inf
        scores[self.allowed] = kept


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"top_k": 3},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 90, "top_p": 0.9},
        {"temperature": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_masked_row_is_one_whose_other_tokens_are_impossible(
    params: dict[str, Any], count: int
) -> None:
    logits = random_logits(8, 400)
    rng = np.random.default_rng(1)
    masks = [Only(sorted(rng.choice(400, count, replace=False).tolist())) for _ in logits]
    tokens = choose(logits, [sampler(seed=row, **params) for row in range(8)], masks)
    for row, mask in enumerate(masks):
        alone = choose(logits[row : row + 1, mask.allowed], [sampler(seed=row, **params)])
        assert tokens[row] == mask.allowed[alone[0]]


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 5000), share=st.floats(0.001, 1))
def test_a_whole_row_is_searched_by_groups_as_it_is_token_by_token(
    seed: int, count: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.random(count).astype(np.float32) * (rng.random(count) < share)
    weights[rng.integers(count)] = 1
    cumulative = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    for uniform in (0.0, np.nextafter(1, 0), *rng.random(2)):
        found = invert_by_groups(weights, uniform)
        assert weights[found] > 0
        assert cumulative[found] - weights[found] / weights.sum() <= uniform + 1e-6
        assert uniform <= cumulative[found] + 1e-9
