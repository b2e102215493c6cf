"""The float32 graph alone, driven by plain onnxruntime, equals transformers.

Tolerance: both sides compute in float32 but sum in different orders; the tiny models' sharp
attention and large weights magnify that to some 3e-4 on logits with a standard deviation of 3.
"""

import numpy as np
import pytest

from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.graphs import GraphInputs, GraphSession, part
from tests.support.oracle import Oracle, Prepared, oracle
from tests.support.talks import FIVE_IMAGES, TEXT_ONLY, Talk, talks

TOLERANCE = 1e-3
TOKENS = 64
TALKS = range(7)  # of `talks`, which fits some images to the checkpoint


def test_every_talk_is_covered() -> None:
    assert len(talks(checkpoint(NAMES[0]))) == len(TALKS)


@pytest.fixture(params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[Oracle, GraphSession]:
    name = str(request.param)
    return oracle(checkpoint(name)), GraphSession(bundle(name, "fp32"))


def prepare(reference: Oracle, talk: Talk) -> Prepared:
    return reference.prepare(talk.to_transformers(), talk.images(), tools=list(talk.tools) or None)


@pytest.mark.parametrize("number", TALKS)
def test_prefill_logits_of_every_prompt_token_equal_transformers(
    pair: tuple[Oracle, GraphSession], number: int
) -> None:
    reference, graph = pair
    prepared = prepare(reference, talks(reference.checkpoint)[number])
    expected = reference.logits(prepared)
    found = graph.run(graph.inputs(reference, prepared), np.arange(len(expected)))
    assert np.abs(found - expected).max() < TOLERANCE
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("number", TALKS)
def test_greedy_tokens_and_their_logits_equal_transformers(
    pair: tuple[Oracle, GraphSession], number: int
) -> None:
    reference, graph = pair
    prepared = prepare(reference, talks(reference.checkpoint)[number])
    expected = reference.greedy(prepared, TOKENS)
    length = len(prepared.input_ids)
    row = graph.run(graph.inputs(reference, prepared), [length - 1])[0]
    for step, (token, logits) in enumerate(zip(expected.token_ids, expected.logits, strict=True)):
        assert np.abs(row - logits).max() < TOLERANCE, f"step {step}"
        assert int(row.argmax()) == token, f"step {step}"
        row = graph.decode_step(token, length + step + prepared.delta)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_prefill_equals_one_run(pair: tuple[Oracle, GraphSession], chunk: int) -> None:
    reference, graph = pair
    inputs = graph.inputs(reference, prepare(reference, FIVE_IMAGES))
    length = len(inputs.embeds)
    whole = graph.run(inputs, [length - 1])[0]
    graph.reset()
    for begin in range(0, length, chunk):
        end = min(begin + chunk, length)
        last = end == length
        rows = graph.run(part(inputs, begin, end), [end - begin - 1] if last else [])
        assert len(rows) == int(last)
    assert np.abs(rows[0] - whole).max() < TOLERANCE


def test_logit_rows_may_come_in_any_order_and_repeat(pair: tuple[Oracle, GraphSession]) -> None:
    reference, graph = pair
    inputs = graph.inputs(reference, prepare(reference, TEXT_ONLY))
    every = graph.run(inputs, np.arange(len(inputs.embeds)))
    graph.reset()
    assert np.abs(graph.run(inputs, [3, 0, 3]) - every[[3, 0, 3]]).max() < TOLERANCE


def test_one_zero_row_stands_for_no_deepstack_at_all(pair: tuple[Oracle, GraphSession]) -> None:
    reference, graph = pair
    inputs = graph.inputs(reference, prepare(reference, TEXT_ONLY))
    assert all(not level.any() for level in inputs.deepstack)
    full = graph.run(inputs, [5])
    graph.reset()
    row = tuple(level[:1] for level in inputs.deepstack)
    short = GraphInputs(embeds=inputs.embeds, position_ids=inputs.position_ids, deepstack=row)
    assert (graph.run(short, [5]) == full).all()
