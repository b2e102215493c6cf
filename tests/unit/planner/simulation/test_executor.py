"""The simulated decoder beside the real step executor, over a runner that takes the same times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from decoder_service.engine.step import StepExecutor
from decoder_service.model.batch import FloatArray, Segments
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.sequence import Sequence as Sequenced
from planner.costs import Costs, Steps
from planner.load import Load
from planner.simulation import decoder
from planner.simulation.outcome import Answer
from planner.simulation.run import Plan, Simulation
from tests.unit.planner.costs_file import costs_object

VOCAB = 4096  # token ids are requests' numbers
COSTS = Costs.of(costs_object(step_spread=[1.0] * 101, overhead_s=0.0))
LOAD = Load(images=0.0, texts=3.0, tokens_in=150, tokens_out=40, seconds=15.0, warm_up_s=0.0)


class TimedRunner:
    """Takes the cost model's time for what it really gets; every token is 0."""

    def __init__(self, steps: Steps) -> None:
        self.now = 0.0
        self._steps = steps
        self._batch: Sequence[Segments] = ()

    def bind(self, batch: Sequence[Segments]) -> "TimedRunner":
        self._batch = batch
        return self

    def run(self) -> FloatArray:
        decode = [part for part in self._batch if part.position_ids.ndim == 1]
        chunks = [
            (int(part.past[0]), int(part.past[0]) + len(part.embeds))
            for part in self._batch
            if part.position_ids.ndim == 2
        ]
        pasts = [int(past) for part in decode for past in part.past]
        self.now += self._steps.seconds(len(pasts), sum(pasts) + len(pasts), chunks)
        rows = sum(len(part.logit_rows) for part in self._batch)
        logits = np.zeros((rows, VOCAB), dtype=np.float32)
        logits[:, 0] = 1.0
        return logits


def really(folder: Path, answers: Sequence[Answer]) -> list[Sequenced]:
    """The same requests through the real executor, in the engine's order."""
    file = folder / "embeddings.bin"
    np.zeros((VOCAB, 4), dtype=np.float32).tofile(file)
    runner, residency = TimedRunner(COSTS.steps), decoder._residency(COSTS.decoder)
    executor = StepExecutor(
        runner=runner,
        table=EmbeddingTable(file, dtype="float32", vocab_size=VOCAB, hidden_size=4),
        residency=residency,
        level_count=0,
        pacer=ChunkPacer(COSTS.decoder.mixed_chunk),
        speculation=Speculation(0),
        clock=lambda: runner.now,
    )
    sequences = [
        Sequenced(decoder._request(answer), arrival=answer.arrival.moment) for answer in answers
    ]
    coming, step = list(sequences), 0
    while coming or residency.running or residency.waiting:
        if not residency.has_work and not residency.waiting:
            runner.now = max(runner.now, coming[0].times.arrival)
        while coming and coming[0].times.arrival <= runner.now:
            residency.arrive(coming.pop(0))
        for sequence in residency.admit(runner.now):
            sequence.served_step = step
        count = residency.slots.decoding_count
        mixed = executor.pacer.chunk_tokens(count) if count else 0
        step += 1
        executor.run(residency.plan(step, mixed, runner.now), step)
    return sequences


def test_every_token_comes_when_the_real_executor_makes_it(tmp_path: Path) -> None:
    simulation = Simulation(COSTS, LOAD, Plan(replicas=0, decoders=1))
    simulation.run()
    sequences = really(tmp_path, simulation.answers)
    assert len(sequences) > 30
    firsts = [answer.first for answer in simulation.answers]
    assert firsts == pytest.approx([sequence.times.first_token for sequence in sequences])
    lasts = [answer.last for answer in simulation.answers]
    assert lasts == pytest.approx([sequence.times.last_token for sequence in sequences])
