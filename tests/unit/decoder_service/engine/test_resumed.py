"""An output that was begun elsewhere goes on as it would have gone on there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decoder_service.engine.step import StepExecutor
from decoder_service.sequence.request import Completion, Request, Token
from decoder_service.sequence.sequence import Sequence
from protos.wire.errors import ServiceError
from tests.unit.decoder_service.fakes import make_executor, make_request, random_features

PENALTIES = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.3}
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.5, "seed": 3},
    {"temperature": 2.0, "seed": 4, "top_p": 0.9, "top_k": 30, **PENALTIES},
)

Event = Token | Completion | ServiceError


def said(executor: StepExecutor, request: Request, *, preempt_at: int | None = None) -> list[Event]:
    """All that came of a request, which loses its slot at a step if asked to."""
    residency = executor.residency
    sequence = Sequence(request, arrival=0.0)
    residency.arrive(sequence)
    for index, span in enumerate(request.spans):
        sequence.set_features(index, random_features(index, span.length), 0.0)
    events: list[Event] = []
    step = 0
    while residency.waiting or residency.running:
        step += 1
        if step == preempt_at:
            residency.preempt(sequence)
        residency.admit(0.0)
        events += [event for _, event in executor.run(residency.plan(step, 8, 0.0), step)]
    return events


def ids(events: list[Event]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, Token)]


def counts(events: list[Event]) -> tuple[int, int]:
    end = events[-1]
    assert isinstance(end, Completion)
    return end.prompt_tokens, end.completion_tokens


def behind(request: Request, output: list[int]) -> Request:
    return replace(request, output_ids=np.array(output, dtype=np.int32))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("draft_tokens", [0, 4])
def test_every_rest_is_that_of_the_whole_answer(
    tmp_path: Path, sampling: dict[str, Any], draft_tokens: int
) -> None:
    request = make_request([1, 2, 3, 4, 5], span_places=[(1, 3)], max_tokens=14, sampling=sampling)
    request = replace(request, position_delta=2)
    whole = said(make_executor(tmp_path, draft_tokens=draft_tokens)[0], request)
    tokens = ids(whole)
    assert len(tokens) == 14
    for cut in range(14):
        executor, _ = make_executor(tmp_path, draft_tokens=draft_tokens)
        rest = said(executor, behind(request, tokens[:cut]), preempt_at=4 if cut % 2 else None)
        assert ids(rest) == tokens[cut:]
        assert counts(rest) == (5, 14)


def test_the_least_number_of_tokens_is_that_of_the_whole_answer(tmp_path: Path) -> None:
    free = ids(said(make_executor(tmp_path)[0], make_request(max_tokens=12)))
    ends = [free[4], free[6]]  # the first may not end it, the second may
    request = replace(make_request(max_tokens=12, stop_token_ids=ends), min_tokens=6)
    whole = said(make_executor(tmp_path)[0], request)
    tokens = ids(whole)
    assert len(tokens) >= 6
    for cut in range(min(12, len(tokens) + 1)):
        rest = said(make_executor(tmp_path)[0], behind(request, tokens[:cut]))
        assert ids(rest) == tokens[cut:]
        assert counts(rest) == counts(whole)


def test_tokens_of_the_output_are_no_cached_tokens_of_the_prompt(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    request = make_request([1, 2, 3, 4, 5, 6, 7, 8], max_tokens=9)
    tokens = ids(said(executor, request))
    sequence = Sequence(behind(request, tokens[:5]), arrival=0.0)
    assert executor.residency.arrive(sequence).cached_tokens == 8
    executor.residency.admit(0.0)
    assert sequence.kv_length == 12  # of the output's tokens all but the last are there
    assert sequence.cached_tokens == 8
