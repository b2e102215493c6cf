"""The float32 two-lane graph equals transformers for every lane of a mixed step.

Tolerance: as for the single-lane graph (tests/parity/test_graph.py).
"""

import numpy as np
import pytest

from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.graphs import GraphInputs, GraphSession, part
from tests.support.oracle import Greedy, Oracle, Prepared, oracle
from tests.support.talks import FIVE_IMAGES, TEXT_ONLY, TOOL_IMAGE, Talk
from tests.support.two_lanes import TwoLaneSession

TOLERANCE = 1e-3
TOKENS = 24
CONTEXT = 640


class Case:
    """One checkpoint's oracle and its two-lane graph over four slots."""

    def __init__(self, name: str) -> None:
        self.reference: Oracle = oracle(checkpoint(name))
        self.single = GraphSession(bundle(name, "fp32"))
        self.graph = TwoLaneSession(bundle(name, "fp32"), slots=4, context=CONTEXT)

    def prepare(self, talk: Talk) -> Prepared:
        return self.reference.prepare(
            talk.to_transformers(), talk.images(), tools=list(talk.tools) or None
        )

    def inputs(self, prepared: Prepared) -> GraphInputs:
        return self.single.inputs(self.reference, prepared)

    def token(self, token: int, position: int) -> GraphInputs:
        hidden = self.graph.manifest.text.hidden_size
        return GraphInputs(
            embeds=self.single.table[[token]],
            position_ids=np.full((3, 1), position, np.int64),
            deepstack=(np.zeros((1, hidden), np.float32),) * len(self.levels),
        )

    @property
    def levels(self) -> range:
        return range(self.graph.manifest.deepstack_level_count)

    def scratch(self) -> list[GraphInputs]:
        """A decode lane that nobody waits for, as a runner fills an empty one."""
        self.graph.lengths[0] = 0
        return [self.token(0, 0)]


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(str(request.param))


def test_every_cpu_bundle_holds_both_graphs_and_the_weights_once() -> None:
    manifest = Bundle.open(bundle("tied", "fp32")).manifest
    graphs = [(graph.lanes, graph.kv_dtype) for graph in manifest.graphs]
    assert graphs == [(1, "float32"), (2, "float32"), (1, "int8"), (2, "int8")]
    data = [name for name in manifest.files if name.endswith(".onnx.data")]
    assert data == ["decoder/model.onnx.data"]


def test_prefill_logits_beside_a_decode_row_equal_transformers(case: Case) -> None:
    prepared = case.prepare(FIVE_IMAGES)
    expected = case.reference.logits(prepared)
    rows = np.arange(len(expected))
    found = case.graph.run(1, case.inputs(prepared), case.scratch(), rows)
    assert np.abs(found - expected).max() < TOLERANCE
    assert (found.argmax(-1) == expected.argmax(-1)).all()


def test_decode_rows_of_different_lengths_run_beside_prefill_chunks(case: Case) -> None:
    prompts = [case.prepare(talk) for talk in (FIVE_IMAGES, TEXT_ONLY, TOOL_IMAGE)]
    expected = [case.reference.greedy(prompt, TOKENS) for prompt in prompts]
    _prefill_last_first(case, prompts)
    newcomer = case.inputs(prompts[1])
    length = len(newcomer.embeds)
    chunk = -(-length // TOKENS)
    for step in range(TOKENS - 1):
        begin = min(step * chunk, length)
        piece = part(newcomer, begin, min(begin + chunk, length))
        if not len(piece.embeds):
            piece, case.graph.lengths[3] = part(newcomer, 0, 1), 0
        decode = [
            case.token(greedy.token_ids[step], len(prompt.input_ids) + step + prompt.delta)
            for prompt, greedy in zip(prompts, expected, strict=True)
        ]
        rows = len(piece.embeds) + np.arange(3)
        found = case.graph.run(3, piece, decode, rows)
        _assert_step(found, expected, step + 1)


def _prefill_last_first(case: Case, prompts: list[Prepared]) -> None:
    """Every later slot while slot 0 is scratch; then slot 0 itself, through slot 3 by a move."""
    for slot in (1, 2):
        case.graph.run(slot, case.inputs(prompts[slot]), case.scratch(), [])
    case.graph.run(3, case.inputs(prompts[0]), case.scratch(), [])
    for buffer in case.graph.buffers.values():
        buffer[0] = buffer[3]
    case.graph.lengths[0], case.graph.lengths[3] = case.graph.lengths[3], 0


def _assert_step(found: np.ndarray, expected: list[Greedy], step: int) -> None:
    for row, greedy in zip(found, expected, strict=True):
        assert np.abs(row - greedy.logits[step]).max() < TOLERANCE, f"step {step}"
        assert int(row.argmax()) == greedy.token_ids[step], f"step {step}"


def test_rows_come_in_any_order_from_both_lanes_or_not_at_all(case: Case) -> None:
    inputs = case.inputs(case.prepare(TEXT_ONLY))
    length = len(inputs.embeds)
    every = case.graph.run(1, inputs, case.scratch(), np.arange(length + 1))
    case.graph.lengths[1] = 0
    found = case.graph.run(1, inputs, case.scratch(), [length, 0, length - 1])
    assert np.abs(found - every[[length, 0, length - 1]]).max() < TOLERANCE
    assert case.graph.run(1, part(inputs, 0, 3), case.scratch(), []).shape == (0, every.shape[1])
