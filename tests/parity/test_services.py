"""The proof: what comes out of the three real services is what transformers would have said.

Every conversation of tests/support/talks.py, on every tiny checkpoint in fp32, and on two in
INT4, for which the oracle's weights are those that the quantized graph implies (accuracy level 0:
activations stay float32). Logits may differ by 1e-3: they come from other orders of summation.

The first bundle's images are encoded on Ray, as users' are. The others' are encoded by the same
replica in the vision tier's own process, which is there ten seconds sooner.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from protos.tandem.v1 import gateway_pb2
from protos.wire import tensors
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.dequantized import dequantized
from tests.support.oracle import Greedy, Oracle, Prepared, oracle
from tests.support.stack import GreedyAnswer, ServedStack, Stacks
from tests.support.talks import ONE_IMAGE, TALK_NAMES, Talk, talks

TOKENS = 64
TOLERANCE = 1e-3
AT_ONCE = 8

SUBJECTS = [*((name, "fp32") for name in NAMES), ("tied", "int4"), ("odd", "int4")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What transformers makes of one conversation."""

    prepared: Prepared
    greedy: Greedy


class Subject:
    """One bundle: its running stack, its oracle, its conversations."""

    def __init__(self, name: str, precision: str, stacks: Stacks) -> None:
        self.talks = {talk.name: talk for talk in talks(checkpoint(name))}
        path = bundle(name, precision, accuracy_level=0)
        self.served: ServedStack = stacks.get(path, ray=(name, precision) == SUBJECTS[0])
        self._oracle: Oracle = oracle(checkpoint(name))
        if precision != "fp32":
            self._oracle = dequantized(self._oracle, path)
        self._expected: dict[str, Expected] = {}

    def expected(self, talk: Talk) -> Expected:
        """The oracle's answer, computed once."""
        if talk.name not in self._expected:
            prepared = self._oracle.prepare(
                talk.to_transformers(), talk.images(), tools=list(talk.tools) or None
            )
            self._expected[talk.name] = Expected(
                prepared=prepared, greedy=self._oracle.greedy(prepared, TOKENS)
            )
        return self._expected[talk.name]


@pytest.fixture(scope="module", params=SUBJECTS, ids="-".join)
def subject(request: pytest.FixtureRequest, stacks: Stacks) -> Subject:
    name, precision = request.param
    return Subject(name, precision, stacks)


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and the services need the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(answer: GreedyAnswer, expected: Greedy) -> None:
    assert answer.token_ids == expected.token_ids
    assert np.abs(answer.logits - expected.logits).max() <= TOLERANCE


@pytest.mark.parametrize("case", TALK_NAMES)
def test_the_prompt_is_the_processors(subject: Subject, case: str) -> None:
    talk = subject.talks[case]
    expected = subject.expected(talk).prepared
    prompt = subject.served.prepare(talk)
    positions = tensors.int32_from_proto(
        prompt.position_ids, field="position_ids", shape=(3, len(prompt.input_ids))
    )
    grids = [(grid.t, grid.h, grid.w) for grid in prompt.grid_thw]
    wanted = [] if expected.image_grid_thw is None else expected.image_grid_thw.tolist()
    assert np.array_equal(prompt.input_ids, expected.input_ids)
    assert np.array_equal(positions, expected.position_ids)
    assert prompt.position_delta == expected.delta
    assert grids == [tuple(grid) for grid in wanted]
    assert spans_of(prompt) == runs_of(expected)


def spans_of(prompt: gateway_pb2.PreparedPrompt) -> list[int]:
    """Every position some span covers, in the order of the spans."""
    return [span.offset + row for span in prompt.visual_spans for row in range(span.length)]


def runs_of(prepared: Prepared) -> list[int]:
    """Every position that belongs to an image."""
    return np.flatnonzero(prepared.mm_token_type_ids).tolist()


@pytest.mark.parametrize("case", TALK_NAMES)
def test_sixty_four_greedy_tokens_and_their_logits_are_transformers(
    subject: Subject, case: str
) -> None:
    talk = subject.talks[case]
    answer = subject.served.greedy(talk, TOKENS)
    assert_same(answer, subject.expected(talk).greedy)
    assert answer.completion.prompt_tokens == len(subject.expected(talk).prepared.input_ids)
    assert answer.completion.completion_tokens == TOKENS


def test_eight_conversations_at_once_do_not_disturb_each_other(subject: Subject) -> None:
    together = [*subject.talks.values(), ONE_IMAGE][:AT_ONCE]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda talk: subject.served.greedy(talk, TOKENS), together))
    assert len(answers) == AT_ONCE
    for talk, answer in zip(together, answers, strict=True):
        assert_same(answer, subject.expected(talk).greedy)
    subject.served.wait_until_idle()
