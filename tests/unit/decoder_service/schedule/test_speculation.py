"""Drafting ahead: what is drafted, when, and that it changes no token."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.schedule.speculation import Speculation, lookup
from decoder_service.sequence.request import Completion, Request, Token
from decoder_service.sequence.sequence import Sequence
from tests.unit.decoder_service.fakes import FakeRunner, make_executor, make_request

FEW = {"logit_bias": ((5, 100.0), (6, 100.0))}  # so that what came before comes again


def ids(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_a_draft_is_what_followed_the_latest_longest_occurrence() -> None:
    assert lookup(ids(1, 2, 3, 4, 9, 1, 2, 7, 1, 2), 3).tolist() == [7, 1, 2]
    assert lookup(ids(7, 1, 2, 8, 1, 2, 9, 7, 1, 2), 1).tolist() == [8]
    assert lookup(ids(1, 2, 3, 4), 3).tolist() == []
    assert lookup(ids(5, 5, 5, 5), 3).tolist() == [5, 5, 5]
    assert lookup(ids(9, 1, 2, 3, 1, 2, 3, 1, 2), 8).tolist() == [3, 1, 2, 3, 1, 2, 3, 1]
    assert lookup(ids(1), 3).tolist() == lookup(ids(1, 1), 3).tolist() == []


@given(history=st.lists(st.integers(0, 2), max_size=30), most=st.integers(1, 8))
def test_a_draft_continues_an_earlier_occurrence(history: list[int], most: int) -> None:
    draft = lookup(ids(*history), most).tolist()
    if draft:
        assert len(draft) == most
        places = (p for p in range(2, len(history)) if history[p - 2 : p] == history[-2:])
        assert any((history[p:] * most)[:most] == draft for p in places)
    else:
        pairs = list(zip(history, history[1:], strict=False))
        assert len(pairs) < 2 or pairs[-1] not in pairs[:-1]


def answers(
    folder: Path, request: Request, draft_tokens: int
) -> tuple[list[Token], Completion, FakeRunner]:
    executor, runner = make_executor(folder, chunk=64, draft_tokens=draft_tokens)
    executor._clock = itertools.count().__next__  # every run takes as long, so drafts pay
    sequence, tokens, step = Sequence(request, arrival=0.0), list[Token](), 0
    executor.residency.arrive(sequence)
    while True:
        step += 1
        executor.residency.admit(0.0)
        for _, event in executor.run(executor.residency.plan(step, 8, 0.0), step):
            if isinstance(event, Completion):
                return tokens, event, runner
            assert isinstance(event, Token)
            tokens.append(event)


@pytest.mark.parametrize(
    "sampling",
    [
        FEW,
        {**FEW, "temperature": 1.0, "seed": 1},
        {**FEW, "temperature": 1.5, "seed": 2, "top_k": 4, "frequency_penalty": 0.3},
    ],
)
@pytest.mark.parametrize("stop", [(), (6,)])
def test_drafts_change_no_token_and_save_runs(
    tmp_path: Path, sampling: dict[str, Any], stop: tuple[int, ...]
) -> None:
    accepted = 0
    for seed in range(6):
        request = make_request(
            [seed, 5, 6, 5, 5, 6, 6, 5], max_tokens=40, sampling=sampling, stop_token_ids=stop
        )
        plain, ended, runner = answers(tmp_path, request, 0)
        assert ended.drafted_tokens == 0
        drafted, completion, fewer = answers(tmp_path, request, 6)
        assert [t.token_id for t in drafted] == [t.token_id for t in plain]
        assert completion.finish_reason is ended.finish_reason
        assert completion.completion_tokens == ended.completion_tokens
        assert 0 <= completion.accepted_tokens <= completion.drafted_tokens
        accepted += completion.accepted_tokens
        runs = len(fewer.batch_sizes) + len(fewer.chunk_sizes)
        assert runs <= len(runner.batch_sizes) + 1 - completion.accepted_tokens + bool(stop)
    assert stop or accepted >= 10


def speculate(most: int = 8) -> tuple[Speculation, Sequence]:
    sequence = Sequence(make_request([1, 2, 3] * 9, max_tokens=30), arrival=0.0)
    return Speculation(most), sequence


def test_drafts_that_come_true_grow_and_those_that_fail_become_rare() -> None:
    speculation, sequence = speculate()
    assert len(speculation.draft(sequence, 20)) == 4
    speculation.settle(sequence, 4, 4)
    assert len(speculation.draft(sequence, 20)) == 8
    for _ in range(6):
        while not len(speculation.draft(sequence, 20)):
            pass
        speculation.settle(sequence, 1, 0)
    pause = 0
    while not len(speculation.draft(sequence, 20)):
        pause += 1
    assert pause == 64


def test_a_draft_that_does_not_pay_is_not_made() -> None:
    speculation, sequence = speculate()
    speculation.observe(1, 0.1)
    speculation.observe(5, 0.11)
    assert len(speculation.draft(sequence, 20)) == 4
    speculation.observe(5, 9.0)
    assert len(speculation.draft(sequence, 20)) == 0


def test_what_was_slow_once_is_tried_again_after_a_pause() -> None:
    speculation, sequence = speculate()
    speculation.observe(1, 0.1)
    speculation.observe(5, 9.0)  # the first run of so many rows
    pause = 0
    while not len(speculation.draft(sequence, 20)):
        pause += 1
    assert pause == 65
    speculation.observe(5, 0.11)
    assert len(speculation.draft(sequence, 20)) == 4


def test_no_draft_goes_beyond_what_is_of_use_or_touches_a_constraint() -> None:
    speculation, sequence = speculate()
    assert len(speculation.draft(sequence, 2)) == 2
    assert len(speculation.draft(sequence, 0)) == 0
    assert len(Speculation(0).draft(sequence, 9)) == 0
