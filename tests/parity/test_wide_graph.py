"""The INT8 form of the two-lane graph computes exactly the integers it says, and loses little.

The emulation runs transformers' model with every product before the gathering of the logit rows
replaced by the same arithmetic in NumPy: activations rounded to uint8 with a scale per row, int8
weights with a scale per column, int32 sums. Only float32 sums around the products differ in order;
where that moves a value across a rounding border one step of 1/127 follows, and the tiny models'
sharp attention magnifies it for the rows it happens to. Most rows meet no border: the median tells
that the arithmetic is the same, the mean that borders are all that differs.
"""

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from protos.bundle import Bundle
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.dequantized import dequantized
from tests.support.graphs import GraphInputs, GraphSession
from tests.support.oracle import Oracle, oracle
from tests.support.talks import FIVE_PICTURES
from tests.support.two_lanes import TwoLaneSession, wide_graph

MEDIAN_TOLERANCE = 1e-5  # logits have a standard deviation of 3
MEAN_TOLERANCE = 0.03
AGREEMENT = 0.97


class IntegerLinear(torch.nn.Module):
    """What the graph does in place of one linear layer, in NumPy."""

    def __init__(self, weight: np.ndarray, scales: np.ndarray) -> None:
        super().__init__()
        self.wide_weight, self.scales = weight.astype(np.int32), scales

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rows = values.detach().numpy()
        scale = np.maximum(
            np.abs(rows).max(-1, keepdims=True) * np.float32(1 / 127), np.float32(1e-30)
        )
        integers = np.clip(np.rint(rows / scale) + 128, 0, 255).astype(np.int32) - 128
        sums = (integers @ self.wide_weight).astype(np.float32)
        return torch.from_numpy(sums * self.scales * scale)


@functools.cache
def emulated(name: str) -> Oracle:
    """The oracle with the wide graph's products; those left alone are the single-lane graph's."""
    folder = bundle(name, "int4", accuracy_level=0)
    changed = copy.copy(dequantized(oracle(checkpoint(name)), folder))
    graph = onnx.load(folder / wide_graph(Bundle.open(folder)).file)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    blocks = {"attn": "self_attn", "mlp": "mlp"}
    for weight_name, weight in arrays.items():
        if not weight_name.endswith("/weight_int8"):
            continue
        _, _, layer, block, projection, *_ = weight_name.split("/")
        owner = changed.model.get_submodule(f"model.language_model.{layer}.{blocks[block]}")
        scales = arrays[weight_name.replace("_int8", "_scales")]
        setattr(owner, projection, IntegerLinear(weight, scales))
    return changed


def prompt(name: str) -> tuple[np.ndarray, GraphInputs, GraphInputs]:
    """The emulation's logits of a prompt with pictures, the prompt, and a row to run beside it."""
    reference = emulated(name)
    prepared = reference.prepare(FIVE_PICTURES.to_transformers(), FIVE_PICTURES.pictures())
    inputs = GraphSession(bundle(name, "fp32")).inputs(oracle(checkpoint(name)), prepared)
    return reference.logits(prepared), inputs, zeros(inputs)


def zeros(inputs: GraphInputs) -> GraphInputs:
    """A token whose embedding is all zeros."""
    return GraphInputs(
        embeds=np.zeros_like(inputs.embeds[:1]),
        position_ids=np.zeros((3, 1), np.int64),
        deepstack=tuple(np.zeros_like(level[:1]) for level in inputs.deepstack),
    )


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_the_same_integer_arithmetic_in_numpy(name: str) -> None:
    expected, inputs, beside = prompt(name)
    graph = TwoLaneSession(
        bundle(name, "int4", accuracy_level=0), slots=2, context=len(inputs.embeds)
    )
    found = graph.run(1, inputs, [beside], np.arange(len(expected)))
    difference = np.abs(found - expected)
    assert np.median(difference) < MEDIAN_TOLERANCE
    assert difference.mean() < MEAN_TOLERANCE
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > AGREEMENT


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_zeros_gives_numbers(name: str) -> None:
    _, inputs, beside = prompt(name)
    graph = TwoLaneSession(bundle(name, "int4"), slots=2, context=len(inputs.embeds))
    found = graph.run(1, beside, [beside], [0, 1])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_logits_at_all_may_be_asked_for(name: str) -> None:
    _, inputs, beside = prompt(name)
    graph = TwoLaneSession(bundle(name, "int4"), slots=2, context=len(inputs.embeds))
    assert len(graph.run(1, inputs, [beside], [])) == 0


@pytest.mark.parametrize("name", NAMES)
def test_lanes_do_not_change_each_other(name: str) -> None:
    _, inputs, beside = prompt(name)
    first = TwoLaneSession(bundle(name, "int4"), slots=2, context=len(inputs.embeds))
    alone = first.run(1, inputs, [beside], [len(inputs.embeds) - 1])
    second = TwoLaneSession(bundle(name, "int4"), slots=4, context=len(inputs.embeds))
    other = GraphInputs(
        embeds=inputs.embeds[:1] * 50, position_ids=beside.position_ids, deepstack=beside.deepstack
    )
    among = second.run(3, inputs, [other, beside, other], [len(inputs.embeds) - 1])
    # Were the whole activation to share one scale, a row 50 times as large would coarsen all.
    assert np.abs(alone - among).max() < 1e-3


def test_the_wide_form_is_closer_to_float32_than_the_narrow_one() -> None:
    # Weights and prompts mean nothing in the tiny models, but integers of 8 bits must lose less.
    for name in NAMES:
        paths: Any = Bundle.open(bundle(name, "int4")).manifest.quality["paths"]
        for wide, narrow in (("wide_prompt", "prompt"), ("wide_rows", "one_row")):
            assert paths[wide]["mean_kl_divergence"] < paths[narrow]["mean_kl_divergence"]


def test_only_the_wide_weights_are_stored_beside_the_others() -> None:
    manifest = Bundle.open(bundle("tied", "int4")).manifest
    graphs = [graph for graph in manifest.graphs if graph.kv_dtype == "float32"]
    form = [(graph.lanes, graph.precision, graph.block_size) for graph in graphs]
    assert form == [(1, "int4", 32), (2, "int8", None)]
    graph = onnx.load(bundle("tied", "int4") / graphs[1].file, load_external_data=False)
    places = {
        tensor.name: next(entry.value for entry in tensor.external_data if entry.key == "location")
        for tensor in graph.graph.initializer
        if tensor.external_data
    }
    own = {name for name, place in places.items() if place == "model.wide.onnx.data"}
    assert own
    assert all("/weight_" in name for name in own)
    assert places["lm_head.MatMul.weight_Q4"] == "model.onnx.data"


def test_a_bundle_may_be_asked_to_hold_one_graph_only(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    command = [sys.executable, "-m", "decoder_service.export", str(checkpoint("odd")), str(target)]
    subprocess.run([*command, "--wide=none"], check=True, capture_output=True, timeout=120)
    manifest = Bundle.open(target).manifest
    assert {graph.lanes for graph in manifest.graphs} == {1}
    assert list(manifest.quality["paths"]) == ["one_row", "prompt"]
