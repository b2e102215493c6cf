"""Sequences held to a form, among others: who is masked, who is told, who fails."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder_service.engine.step import StepExecutor
from decoder_service.sampling.sampler import FloatArray
from decoder_service.sequence.request import Constraint, ReportOptions, Request, Token
from decoder_service.sequence.sequence import Sequence
from protos.wire.errors import InvalidRequest, Reason, ServiceError
from tests.unit.decoder_service.fakes import VOCAB, make_executor, make_request

EVEN = range(0, VOCAB, 2)


class Only:
    """Allows some tokens; fails when it has taken `fails_after`."""

    def __init__(self, allowed: range = EVEN, *, fails_after: int | None = None) -> None:
        self.allowed = np.array(allowed)
        self.fails_after = fails_after
        self.accepted: list[int] = []

    def mask(self, scores: FloatArray) -> None:
        if len(self.accepted) == self.fails_after:
            raise InvalidRequest("it leads nowhere", reason=Reason.INVALID_SCHEMA)
        banned = np.ones(len(scores), dtype=np.bool_)
        banned[self.allowed] = False
        scores[banned] = -np.inf

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def held(request: Request, constraint: Constraint) -> Request:
    return replace(request, constraint=constraint)


def finished(
    executor: StepExecutor, *requests: Request, preempt_at: int | None = None
) -> list[list[Token | ServiceError]]:
    """What became of each; all of them lose their slots at a step, if asked to."""
    residency = executor.residency
    sequences = [Sequence(request, arrival=0.0) for request in requests]
    said: dict[Sequence, list[Token | ServiceError]] = {one: [] for one in sequences}
    for sequence in sequences:
        residency.arrive(sequence)
    step = 0
    while residency.waiting or residency.running:
        step += 1
        if step == preempt_at:
            for sequence in list(residency.running):
                residency.preempt(sequence)
        residency.admit(0.0)
        for sequence, event in executor.run(residency.plan(step, 8, 0.0), step):
            if isinstance(event, Token | ServiceError):
                said[sequence].append(event)
    return [said[sequence] for sequence in sequences]


def ids(said: list[Token | ServiceError]) -> list[int]:
    return [event.token_id for event in said if isinstance(event, Token)]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "seed": 3, "top_p": 0.9}], ids=str)
def test_every_token_is_masked_and_handed_over_once(
    tmp_path: Path, sampling: dict[str, float]
) -> None:
    executor, _ = make_executor(tmp_path)
    constraint = Only()
    (said,) = finished(executor, held(make_request(max_tokens=12, sampling=sampling), constraint))
    assert len(ids(said)) == 12
    assert set(ids(said)) <= set(EVEN)
    assert constraint.accepted == ids(said)


def test_the_token_that_ends_an_answer_is_not_handed_over(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    constraint = Only(range(4, 5))
    request = held(make_request(max_tokens=12, stop_token_ids=[4]), constraint)
    assert finished(executor, request) == [[]]
    assert constraint.accepted == []


def test_free_sequences_say_the_same_among_held_ones(tmp_path: Path) -> None:
    sampled = {"temperature": 1.5, "seed": 11}
    free = [make_request([1, 2], max_tokens=9), make_request([3], max_tokens=9, sampling=sampled)]
    alone = [finished(make_executor(tmp_path)[0], request)[0] for request in free]
    mixed = [free[0], held(make_request([5], max_tokens=9), Only()), free[1]]
    mixed.append(held(make_request([6], max_tokens=9, sampling=sampled), Only(range(1, 9))))
    said = finished(make_executor(tmp_path)[0], *mixed)
    assert [ids(said[0]), ids(said[2])] == [ids(one) for one in alone]
    assert set(ids(said[1])) <= set(EVEN)
    assert set(ids(said[3])) <= set(range(1, 9))


def test_a_constraint_that_fails_fails_its_sequence_alone_and_by_name(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    (expected,) = finished(executor, make_request([1, 2], max_tokens=9))
    bad = held(make_request([3], max_tokens=9), Only(fails_after=2))
    failed, other = finished(executor, bad, make_request([1, 2], max_tokens=9))
    assert len(ids(failed)) == 2
    assert isinstance(failed[-1], InvalidRequest)
    assert failed[-1].reason is Reason.INVALID_SCHEMA
    assert ids(other) == ids(expected)


def test_a_preempted_sequence_goes_on_at_its_place_in_the_grammar(tmp_path: Path) -> None:
    request = make_request([1, 2], max_tokens=9, sampling={"temperature": 1.0, "seed": 2})
    constraints = [Only(), Only()]
    (whole,) = finished(make_executor(tmp_path)[0], held(request, constraints[0]))
    (broken,) = finished(make_executor(tmp_path)[0], held(request, constraints[1]), preempt_at=5)
    assert ids(broken) == ids(whole)
    assert constraints[1].accepted == constraints[0].accepted


def test_logits_and_logprobs_are_reported_unmasked(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    report = ReportOptions(logprobs=True, top_logprob_count=VOCAB, logits=True)
    (said,) = finished(executor, held(make_request(report=report), Only()))
    for event in said:
        assert isinstance(event, Token) and event.logits is not None and event.logprobs is not None
        assert np.isfinite(event.logits).all()
        assert len(event.logprobs.top) == VOCAB
