"""The runner of portable graphs equals transformers, for steps of every kind.

Tolerance: as for the graphs themselves (tests/parity/test_graph.py).
"""

from collections.abc import Sequence

import numpy as np
import pytest

from decoder_service.model.batch import Runner, Segments
from tests.support import graphs as support
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.graphs import GraphInputs
from tests.support.oracle import Greedy, Prepared, oracle
from tests.support.runners import logits_of, open_runner
from tests.support.talks import FIVE_IMAGES, TEXT_ONLY, TOOL_IMAGE

TOLERANCE = 1e-3
TOKENS = 8
CHUNK = 50
CONTEXT = 640


def loaded_runner(name: str) -> Runner:
    runner, _ = open_runner(bundle(name, "fp32"), slots=4, context=CONTEXT)
    return runner


class Talk:
    """One prompt, what transformers answers, and how far the runner has come with it."""

    def __init__(self, name: str, prepared: Prepared) -> None:
        reference, single = oracle(checkpoint(name)), support.GraphSession(bundle(name, "fp32"))
        self.prepared = prepared
        self.greedy: Greedy = reference.greedy(prepared, TOKENS)
        self.inputs: GraphInputs = single.inputs(reference, prepared)
        self.table = single.table
        self.past = 0
        self.made = 0

    @property
    def length(self) -> int:
        return len(self.inputs.embeds)

    def chunk(self, slot: int, size: int = CHUNK) -> Segments:
        stop = min(self.past + size, self.length)
        rows = slice(self.past, stop)
        deepstack = np.stack([level[rows] for level in self.inputs.deepstack])
        chunk = Segments(
            slot=slot,
            past=np.array([self.past], np.int32),
            embeds=self.inputs.embeds[rows],
            position_ids=self.inputs.position_ids[:, rows].astype(np.int32),
            deepstack=deepstack if deepstack.any() else None,
            logit_rows=np.array([stop - self.past - 1] if stop == self.length else [], np.int64),
        )
        self.past = stop
        return chunk

    def take(self, row: np.ndarray) -> None:
        assert np.abs(row - self.greedy.logits[self.made]).max() < TOLERANCE, self.made
        assert int(row.argmax()) == self.greedy.token_ids[self.made]
        self.made += 1


def decode_step(talks: list[Talk]) -> Segments:
    tokens = [talk.greedy.token_ids[talk.made - 1] for talk in talks]
    past = np.array([talk.past for talk in talks], np.int32)
    for talk in talks:
        talk.past += 1
    deltas = np.array([talk.prepared.delta for talk in talks], np.int64)
    return Segments(
        slot=0,
        past=past,
        embeds=talks[0].table[tokens],
        position_ids=past + deltas,
        logit_rows=np.arange(len(talks)),
    )


def take(logits: Sequence[np.ndarray] | np.ndarray, talks: list[Talk]) -> None:
    for row, talk in zip(logits, talks, strict=True):
        talk.take(row)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_step_gives_transformers_tokens(name: str) -> None:
    runner, reference = loaded_runner(name), oracle(checkpoint(name))
    prompts = [
        reference.prepare(talk.to_transformers(), talk.images(), tools=list(talk.tools) or None)
        for talk in (TEXT_ONLY, FIVE_IMAGES, TOOL_IMAGE)
    ]
    talks, running = [Talk(name, prompt) for prompt in prompts], list[Talk]()
    for slot, newcomer in enumerate(talks):
        while newcomer.past < newcomer.length:
            # The last tokens of an answer are left for steps without a prompt.
            beside = running if all(talk.made < TOKENS - 4 for talk in running) else []
            chunk = newcomer.chunk(slot)
            decode = [decode_step(beside)] if beside else []
            prompt, *rows = logits_of(runner, chunk, *decode)
            take(prompt, [newcomer] * len(prompt))
            take(rows[0] if rows else [], beside)
        running.append(newcomer)
    for count in (3, 2, 1):
        beside = talks[:count]
        take(logits_of(runner, decode_step(beside))[0], beside)


@pytest.mark.parametrize("name", NAMES)
def test_chunks_of_several_prompts_share_a_step_with_decoding_sequences(name: str) -> None:
    runner, reference = loaded_runner(name), oracle(checkpoint(name))
    stream, *newcomers = [
        Talk(name, reference.prepare(talk.to_transformers(), talk.images()))
        for talk in (TEXT_ONLY, FIVE_IMAGES, TEXT_ONLY)
    ]
    take(logits_of(runner, stream.chunk(0, CONTEXT))[0], [stream])
    chunks = [talk.chunk(slot, CONTEXT) for slot, talk in enumerate(newcomers, start=1)]
    found = logits_of(runner, *chunks, decode_step([stream]))
    for logits, talk in zip(found, [*newcomers, stream], strict=True):
        take(logits, [talk])


def test_a_draft_gives_the_logits_of_every_row() -> None:
    runner, reference = loaded_runner("tied"), oracle(checkpoint("tied"))
    talk = Talk("tied", reference.prepare(TEXT_ONLY.to_transformers(), TEXT_ONLY.images()))
    logits_of(runner, talk.chunk(0, CONTEXT))
    draft = np.array(talk.greedy.token_ids[: TOKENS - 1])
    positions = talk.past + talk.prepared.delta + np.arange(len(draft))
    verified = Segments(
        slot=0,
        past=np.array([talk.past], np.int32),
        embeds=talk.table[draft],
        position_ids=np.broadcast_to(positions, (3, len(draft))).astype(np.int32),
        logit_rows=np.arange(len(draft)),
    )
    bound = runner.bind([verified])
    for _ in range(2):  # a run may be repeated
        found = bound.run()
        assert np.abs(found - talk.greedy.logits[1:TOKENS]).max() < TOLERANCE
