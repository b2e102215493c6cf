"""The runner of portable graphs equals transformers, for steps of every kind.

Tolerance: as for the graphs themselves (tests/parity/test_graph.py).
"""

import numpy as np
import pytest

from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane, Runner
from tests.support import graphs as support
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.graphs import GraphInputs
from tests.support.oracle import Greedy, Prepared, oracle
from tests.support.runners import open_runner
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

    def chunk(self, slot: int, size: int = CHUNK) -> PrefillLane:
        stop = min(self.past + size, self.length)
        rows = slice(self.past, stop)
        deepstack = np.stack([level[rows] for level in self.inputs.deepstack])
        lane = PrefillLane(
            slot=slot,
            past=self.past,
            embeds=self.inputs.embeds[rows],
            position_ids=self.inputs.position_ids[:, rows].astype(np.int32),
            deepstack=deepstack if deepstack.any() else None,
            logit_rows=np.array([stop - self.past - 1] if stop == self.length else [], np.int64),
        )
        self.past = stop
        return lane

    def take(self, row: np.ndarray) -> None:
        assert np.abs(row - self.greedy.logits[self.made]).max() < TOLERANCE, self.made
        assert int(row.argmax()) == self.greedy.token_ids[self.made]
        self.made += 1


def decode_lane(talks: list[Talk]) -> DecodeLane:
    tokens = [talk.greedy.token_ids[talk.made - 1] for talk in talks]
    past = np.array([talk.past for talk in talks], np.int32)
    for talk in talks:
        talk.past += 1
    deltas = np.array([talk.prepared.delta for talk in talks], np.int64)
    return DecodeLane(embeds=talks[0].table[tokens], position_ids=past + deltas, past=past)


def take(logits: LaneLogits, newcomer: Talk | None, running: list[Talk]) -> None:
    if newcomer is not None and len(logits.prefill):
        newcomer.take(logits.prefill[0])
    assert len(logits.decode) == len(running)
    for row, talk in zip(logits.decode, running, strict=True):
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
            decode = decode_lane(beside) if beside else None
            take(runner.run(chunk, decode), newcomer, beside)
        running.append(newcomer)
    for count in (3, 2, 1):
        beside = talks[:count]
        take(runner.run(None, decode_lane(beside)), None, beside)


def test_a_draft_gives_the_logits_of_every_row() -> None:
    runner, reference = loaded_runner("tied"), oracle(checkpoint("tied"))
    talk = Talk("tied", reference.prepare(TEXT_ONLY.to_transformers(), TEXT_ONLY.images()))
    runner.run(talk.chunk(0, CONTEXT), None)
    draft = np.array(talk.greedy.token_ids[: TOKENS - 1])
    positions = talk.past + talk.prepared.delta + np.arange(len(draft))
    lane = PrefillLane(
        slot=0,
        past=talk.past,
        embeds=talk.table[draft],
        position_ids=np.broadcast_to(positions, (3, len(draft))).astype(np.int32),
        deepstack=None,
        logit_rows=np.arange(len(draft)),
    )
    for _ in range(2):  # a run may be repeated
        found = runner.run(lane, None).prefill
        assert np.abs(found - talk.greedy.logits[1:TOKENS]).max() < TOLERANCE
