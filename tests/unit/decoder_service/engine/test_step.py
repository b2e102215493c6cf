"""One step at a time, without the engine's thread."""

from pathlib import Path

import numpy as np

from decoder_service.engine.step import Output, StepExecutor
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from decoder_service.schedule.scheduler import PrefillChunk, StepPlan
from decoder_service.sequence.sequence import Request, Sequence, Status, Token
from protos.wire.errors import Reason, ServiceError
from tests.unit.decoder_service.fakes import VOCAB, make_executor, make_request, random_features


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
