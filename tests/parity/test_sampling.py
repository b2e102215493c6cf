"""Sampling against transformers' own logits processors, parameter by parameter and all together.

The whole distribution is compared, not a histogram: a token must be drawn by the random numbers
just inside both ends of its interval of the reference's cumulative distribution. Presence and
frequency penalties, which transformers lacks, follow OpenAI's definition.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from tests.support.sampling import choose

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

VOCAB = 40
LIKELY = 1e-3  # tokens less likely than this are too narrow to aim at
INSIDE = 1e-5  # how far inside its interval; float32 sums err by some 1e-6

TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=12)
PARAMS = st.fixed_dictionaries(
    {"temperature": st.floats(0.3, 2)},
    optional={
        "top_k": st.integers(0, VOCAB + 5),
        "top_p": st.floats(0.05, 1),
        "min_p": st.floats(0, 0.5),
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(
            st.integers(0, VOCAB - 1), st.floats(0.1, 5) | st.floats(-5, -0.1), max_size=4
        ).map(lambda biases: tuple(biases.items())),
    },
)


class Aimed(Sampler):
    """A sampler whose random number is given."""

    aim = 0.0

    def uniform(self) -> float:
        return self.aim


def penalized(
    logits: Float32Array, prompt: list[int], output: list[int], params: SamplingParams
) -> torch.Tensor:
    """Logits of one row after bias and penalties, [1, vocab]."""
    ids = torch.tensor([prompt + output], dtype=torch.long)
    scores = torch.from_numpy(logits)[None]
    if params.logit_bias:
        biases = {(token,): value for token, value in params.logit_bias}
        scores = SequenceBiasLogitsProcessor(biases)(ids, scores)
    if params.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, scores)
    counts = torch.bincount(torch.tensor(output, dtype=torch.long), minlength=VOCAB)
    presence = params.presence_penalty * (counts > 0)
    penalized_scores: torch.Tensor = scores - presence - params.frequency_penalty * counts
    return penalized_scores


def distribution(scores: torch.Tensor, params: SamplingParams) -> Float64Array:
    """Probabilities of all tokens after temperature and filters, [vocab]."""
    warpers: list[Any] = [TemperatureLogitsWarper(params.temperature)]
    warpers += [TopKLogitsWarper(params.top_k)] if params.top_k else []
    warpers += [TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []
    warpers += [MinPLogitsWarper(params.min_p)] if params.min_p else []
    for warper in warpers:
        scores = warper(None, scores)
    probabilities: Float64Array = scores[0].double().softmax(-1).numpy()
    return probabilities


def drawn(
    logits: Float32Array,
    prompt: list[int],
    output: list[int],
    params: SamplingParams,
    aims: list[float],
) -> list[int]:
    """The tokens our sampling draws with the random numbers `aims`."""
    samplers = []
    for aim in aims:
        sampler = Aimed(params, np.array(prompt, dtype=np.int32), len(output) + 1)
        for token in output:
            sampler.observe(token)
        sampler.aim = aim
        samplers.append(sampler)
    return list(choose(np.repeat(logits[None], len(aims), axis=0), samplers))


def random_logits(seed: int) -> Float32Array:
    return (np.random.default_rng(seed).standard_normal(VOCAB) * 3).astype(np.float32)


# Derandomized: random examples would meet a nucleus that ends within a rounding once in a year.
@given(seed=st.integers(0, 2**32), prompt=TOKENS, output=TOKENS, given_params=PARAMS)
@example(seed=1, prompt=[], output=[], given_params={"temperature": 1.0})
@example(seed=1, prompt=[], output=[], given_params={"temperature": 0.5})
@example(seed=1, prompt=[], output=[], given_params={"temperature": 1.0, "top_k": 7})
@example(seed=1, prompt=[], output=[], given_params={"temperature": 1.5, "top_p": 0.7})
@example(seed=1, prompt=[], output=[], given_params={"temperature": 1.5, "min_p": 0.1})
@example(
    seed=1,
    prompt=list(range(20)),
    output=[25, 25, 3],
    given_params={"temperature": 2.0, "repetition_penalty": 1.7},
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_token_is_drawn_with_the_probability_transformers_gives_it(
    seed: int, prompt: list[int], output: list[int], given_params: dict[str, Any]
) -> None:
    logits, params = random_logits(seed), SamplingParams(**given_params)
    wanted = distribution(penalized(logits, prompt, output, params), params)
    ends = np.cumsum(wanted)
    tokens = np.flatnonzero(wanted > LIKELY)
    first = (ends - wanted)[tokens] + INSIDE
    last = ends[tokens] - INSIDE
    aims = np.concatenate([first, last]).tolist()
    assert drawn(logits, prompt, output, params, aims) == [*tokens, *tokens]


@given(seed=st.integers(0, 2**32), prompt=TOKENS, output=TOKENS, given_params=PARAMS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_greedy_takes_the_likeliest_token_after_transformers_penalties(
    seed: int, prompt: list[int], output: list[int], given_params: dict[str, Any]
) -> None:
    params = SamplingParams(**{**given_params, "temperature": 0.0})
    logits = random_logits(seed)
    wanted = int(penalized(logits, prompt, output, params).argmax())
    assert drawn(logits, prompt, output, params, [0.5]) == [wanted]
