"""One step at a time, without the engine's thread."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from decoder_service.engine.outputs import Output
from decoder_service.engine.step import StepExecutor
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from decoder_service.schedule.scheduler import PrefillChunk, StepPlan
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.request import Completion, Request, Token
from decoder_service.sequence.sequence import Sequence, Status
from protos.wire.errors import Reason, ServiceError
from tests.unit.decoder_service.fakes import (
    EMBEDDINGS,
    VOCAB,
    make_executor,
    make_request,
    random_features,
)


def admit(executor: StepExecutor, sequence: Sequence) -> None:
    executor.residency.arrive(sequence)
    assert executor.residency.admit(0.0) == [sequence]


def prefill(executor: StepExecutor, chunk: PrefillChunk) -> list[Output]:
    return executor.run(StepPlan((), (chunk,)), 1)


def decode(executor: StepExecutor) -> list[Output]:
    return executor.run(StepPlan(tuple(executor.residency.slots.decoding()), ()), 1)


def prefilled(executor: StepExecutor, request: Request) -> Sequence:
    sequence = Sequence(request, arrival=0.0)
    admit(executor, sequence)
    prefill(executor, PrefillChunk(sequence, 0, request.prompt_length))
    assert sequence.status is Status.DECODING
    return sequence


def test_a_row_that_cannot_be_sampled_fails_alone_in_a_decode_step(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    sampled = {"temperature": 1.0, "seed": 4}
    alone = prefilled(executor, make_request([1, 2], max_tokens=9, sampling=sampled))
    (expected,) = decode(executor)
    assert isinstance(expected.event, Token)
    executor.residency.end(alone, is_sound=False)
    good = prefilled(executor, make_request([1, 2], max_tokens=9, sampling=sampled))
    bad = prefilled(executor, make_request([3], max_tokens=9))
    # Out of the vocabulary: validation refuses it, so only a bug could bring it here.
    params = SamplingParams(temperature=0.0, logit_bias=((VOCAB + 5, 1.0),))
    bad.sampler = Sampler(params, np.array([3], np.int32), 9)
    outputs = {output.sequence: output.event for output in decode(executor)}
    assert outputs[good] == expected.event
    failure = outputs[bad]
    assert isinstance(failure, ServiceError) and failure.reason is Reason.INTERNAL
    assert bad.slot is None and good.slot == 0
    assert executor.residency.running == [good]


def test_features_are_dropped_once_their_span_is_prefilled(tmp_path: Path) -> None:
    executor, _ = make_executor(tmp_path)
    sequence = Sequence(make_request([1] * 9, span_places=[(2, 3), (6, 2)]), arrival=0.0)
    admit(executor, sequence)
    for index, length in enumerate((3, 2)):
        sequence.set_features(index, random_features(index, length), 0.0)
    for start, stop, left in ((0, 3, 2), (3, 5, 1), (5, 7, 1), (7, 8, 0)):
        assert prefill(executor, PrefillChunk(sequence, start, stop)) == []
        assert sum(values is not None for values in sequence.features) == left


def test_a_sequence_that_ends_with_its_first_token_never_decodes(tmp_path: Path) -> None:
    executor, runner = make_executor(tmp_path)
    sequence = Sequence(make_request([1, 2], max_tokens=1), arrival=0.0)
    admit(executor, sequence)
    outputs = prefill(executor, PrefillChunk(sequence, 0, 2))
    assert len(outputs) == 2
    assert sequence.status is Status.FINISHED
    assert executor.residency.running == [] and executor.residency.slots.decoding_count == 0
    assert runner.batch_sizes == []


def waiting_prompts(executor: StepExecutor, *prompts: list[int]) -> list[Sequence]:
    sequences = []
    for ids in prompts:
        sequences.append(Sequence(make_request(ids, max_tokens=9), arrival=0.0))
        admit(executor, sequences[-1])
    return sequences


def planned(executor: StepExecutor, mixed_tokens: int) -> StepPlan:
    return executor.residency.plan(1, mixed_tokens, 0.0)


def test_short_prompts_and_decoding_sequences_share_one_run(tmp_path: Path) -> None:
    alone = []
    for ids in ([1, 2, 3], [4, 5], [6, 7, 8, 9]):
        executor, _ = make_executor(tmp_path)
        (sequence,) = waiting_prompts(executor, ids)
        alone.append(prefill(executor, PrefillChunk(sequence, 0, len(ids))))
    executor, runner = make_executor(tmp_path)
    stream = prefilled(executor, make_request([1, 1], max_tokens=9))
    prompts = waiting_prompts(executor, [1, 2, 3], [4, 5], [6, 7, 8, 9])
    runner.run_sizes.clear()
    outputs = {o.sequence: o.event for o in executor.run(planned(executor, 9), 1)}
    assert runner.run_sizes == [3]
    assert runner.batch_sizes == [1] and runner.chunk_sizes[-3:] == [2, 3, 4]
    assert set(outputs) == {stream, *prompts}
    assert [[outputs[prompt]] for prompt in prompts] == [[o.event for o in one] for one in alone]
    assert executor.residency.slots.decoding_count == 4


def test_a_budget_that_ends_within_a_prompt_leaves_its_rest_to_the_next_step(
    tmp_path: Path,
) -> None:
    executor, runner = make_executor(tmp_path, chunk=6)
    short, long = waiting_prompts(executor, [4, 5], [6] * 9)
    assert [output.sequence for output in executor.run(planned(executor, 1), 1)] == [short]
    assert runner.run_sizes == [2] and runner.chunk_sizes == [2, 4]
    assert long.kv_length == 4 and long.status is Status.PREFILLING


def test_of_several_prompts_in_a_run_the_one_that_fails_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor, runner = make_executor(tmp_path)
    stream = prefilled(executor, make_request([1, 1], max_tokens=9))
    good, bad, other = waiting_prompts(executor, [1, 2, 3], [9, 5], [6, 7])
    runner.fail_on = EMBEDDINGS[9]
    outputs = {o.sequence: o.event for o in executor.run(planned(executor, 9), 1)}
    failure = outputs.pop(bad)
    assert isinstance(failure, ServiceError) and failure.reason is Reason.INTERNAL
    assert set(outputs) == {stream, good, other}
    assert all(isinstance(event, Token) for event in outputs.values())
    assert bad.status is Status.FINISHED and bad not in executor.residency.running
    assert executor.residency.slots.decoding() == [stream, other, good]
    fresh, _ = make_executor(tmp_path)
    (sequence,) = waiting_prompts(fresh, [1, 2, 3])
    expected = prefill(fresh, PrefillChunk(sequence, 0, 3))
    assert outputs[good] == expected[0].event


class Foretold(Speculation):
    """Drafts what it is told."""

    def __init__(self, tokens: list[int]) -> None:
        super().__init__(len(tokens))
        self.tokens = np.array(tokens, np.int32)

    def draft(self, sequence: Sequence, room: int) -> npt.NDArray[np.int32]:
        return self.tokens[:room]


@pytest.mark.parametrize(("right", "accepted"), [(3, 3), (1, 1), (0, 0)])
def test_a_draft_is_taken_as_far_as_it_comes_true_and_counted_in_the_completion(
    tmp_path: Path, right: int, accepted: int
) -> None:
    request = make_request([1, 2, 3], max_tokens=5)
    plain, _ = make_executor(tmp_path)
    sequence = prefilled(plain, request)
    while sequence.status is Status.DECODING:
        decode(plain)
    answer = sequence.token_ids[3:8].tolist()
    draft = [token if at < right else (token + 1) % VOCAB for at, token in enumerate(answer[1:4])]
    executor, runner = make_executor(tmp_path, speculation=Foretold(draft))
    sequence = prefilled(executor, request)
    events = [output.event for output in decode(executor)]
    assert runner.chunk_sizes[-1] == 4
    tokens = [event.token_id for event in events if isinstance(event, Token)]
    assert tokens == answer[1 : 2 + accepted]
    if right == 3:  # all but the last, which follows from the draft's last row
        completion = events[-1]
        assert isinstance(completion, Completion)
        assert (completion.drafted_tokens, completion.accepted_tokens) == (3, 3)
    assert (sequence.drafted_tokens, sequence.accepted_tokens) == (3, accepted)
