"""The runner equals transformers in either form of the weights, for lanes of every kind.

Tolerance: as for the graphs themselves (tests/parity/test_graph.py).
"""

import numpy as np
import pytest

from decoder_service.forms import Form, FormPolicy
from decoder_service.kv_cache import KvCache
from decoder_service.lanes import DecodeLane, LaneLogits, PrefillLane
from decoder_service.runner import OrtRunner
from decoder_service.sessions import Graphs, open_graphs
from protos.bundle import Bundle
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.graphs import GraphInputs, GraphSession
from tests.support.oracle import Greedy, Prepared, oracle
from tests.support.talks import FIVE_PICTURES, TEXT_ONLY, TOOL_PICTURE

TOLERANCE = 1e-3
TOKENS = 8
CHUNK = 50
CONTEXT = 640


def make_runner(name: str, forms: str) -> OrtRunner:
    opened = Bundle.open(bundle(name, "fp32"))
    loaded = {form: open_graphs(opened, threads=1, weight_forms=form) for form in forms.split("+")}
    graphs = Graphs(
        narrow=loaded["narrow"].narrow if "narrow" in loaded else None,
        wide=loaded["wide"].wide if "wide" in loaded else None,
        kv_dtype=np.dtype(np.float32),
    )
    text = opened.manifest.text
    cache = KvCache(
        layer_count=text.num_hidden_layers,
        slot_count=4,
        head_count=text.num_key_value_heads,
        max_length=CONTEXT,
        head_dim=text.head_dim,
    )
    return OrtRunner(graphs, opened, cache, FormPolicy(decode_rows=2, prefill_rows=8))


class Talk:
    """One prompt, what transformers answers, and how far the runner has come with it."""

    def __init__(self, name: str, prepared: Prepared) -> None:
        reference, single = oracle(checkpoint(name)), GraphSession(bundle(name, "fp32"))
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
@pytest.mark.parametrize("forms", ["narrow", "wide", "narrow+wide"])
def test_every_kind_of_step_gives_transformers_tokens(name: str, forms: str) -> None:
    runner, reference = make_runner(name, forms), oracle(checkpoint(name))
    prompts = [
        reference.prepare(talk.to_transformers(), talk.pictures(), tools=list(talk.tools) or None)
        for talk in (TEXT_ONLY, FIVE_PICTURES, TOOL_PICTURE)
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


@pytest.mark.parametrize("forms", ["narrow", "wide"])
def test_a_draft_gives_the_logits_of_every_row(forms: str) -> None:
    runner, reference = make_runner("tied", forms), oracle(checkpoint("tied"))
    talk = Talk("tied", reference.prepare(TEXT_ONLY.to_transformers(), TEXT_ONLY.pictures()))
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


def test_forms_are_chosen_by_rows_where_both_are_loaded() -> None:
    runner = make_runner("tied", "narrow+wide")
    rows = np.zeros((9, runner.hidden_size), np.float32)

    def draft(count: int) -> PrefillLane:
        return PrefillLane(
            slot=3,
            past=0,
            embeds=rows[:count],
            position_ids=np.zeros((3, count), np.int32),
            deepstack=None,
            logit_rows=np.arange(count),
        )

    def step(count: int) -> DecodeLane:
        places = np.zeros(count, np.int32)
        return DecodeLane(embeds=rows[:count], position_ids=places.astype(np.int64), past=places)

    assert runner.form_of(None, step(1)) is Form.NARROW
    assert runner.form_of(None, step(2)) is Form.WIDE
    assert runner.form_of(draft(7), None) is Form.NARROW
    assert runner.form_of(draft(8), None) is Form.WIDE
    assert runner.form_of(draft(1), step(1)) is Form.WIDE
    assert make_runner("tied", "narrow").form_of(draft(8), step(2)) is Form.NARROW
