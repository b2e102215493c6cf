"""A quantized graph computes exactly what its quantized weights imply.

The oracle is transformers' model with the graph's own weights, dequantized. At accuracy level 0
activations stay float32, so only the order of sums differs: the tolerance is that of the float32
graph. At level 4 activations are rounded to int8 for every product; what that changes is a measured
property, reported here and in the manifest, not an error.
"""

import functools

import numpy as np
import pytest

from deploy.divergence import kl_divergence
from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.dequantized import dequantized
from tests.support.graphs import GraphSession
from tests.support.oracle import Oracle, Prepared, oracle
from tests.support.talks import FIVE_IMAGES, TEXT_ONLY, TOOL_IMAGE, Talk

TOLERANCE = 1e-3
TOKENS = 64
# Every shape in int4, two in int8: the paths differ only in the packing.
GRAPHS = [*((name, "int4") for name in NAMES), ("tied", "int8"), ("odd", "int8")]


@functools.cache
def quantized_oracle(name: str, precision: str) -> Oracle:
    return dequantized(oracle(checkpoint(name)), bundle(name, precision, accuracy_level=0))


def prepare(reference: Oracle, talk: Talk) -> Prepared:
    return reference.prepare(talk.to_transformers(), talk.images(), tools=list(talk.tools) or None)


@pytest.mark.parametrize("talk", [TEXT_ONLY, FIVE_IMAGES, TOOL_IMAGE], ids=lambda t: t.name)
@pytest.mark.parametrize(("name", "precision"), GRAPHS)
def test_level_0_gives_the_tokens_and_logits_of_the_dequantized_weights(
    name: str, precision: str, talk: Talk
) -> None:
    reference = quantized_oracle(name, precision)
    graph = GraphSession(bundle(name, precision, accuracy_level=0))
    prepared = prepare(reference, talk)
    expected = reference.greedy(prepared, TOKENS)
    length = len(prepared.input_ids)
    row = graph.run(graph.inputs(reference, prepared), [length - 1])[0]
    for step, (token, logits) in enumerate(zip(expected.token_ids, expected.logits, strict=True)):
        assert np.abs(row - logits).max() < TOLERANCE, f"step {step}"
        assert int(row.argmax()) == token, f"step {step}"
        row = graph.decode_step(token, length + step + prepared.delta)


@pytest.mark.parametrize("name", NAMES)
def test_both_levels_hold_the_same_weights(name: str) -> None:
    exact, fast = (bundle(name, "int4", accuracy_level=level) for level in (0, 4))
    data = [(path / "decoder" / "model.onnx.data").read_bytes() for path in (exact, fast)]
    assert data[0] == data[1]


@pytest.mark.parametrize(("name", "precision"), GRAPHS)
def test_level_4_is_measured_against_the_dequantized_weights(
    name: str,
    precision: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference = quantized_oracle(name, precision)
    graph = GraphSession(bundle(name, precision, accuracy_level=4))
    prepared = prepare(reference, FIVE_IMAGES)
    expected = reference.logits(prepared)
    found = graph.run(graph.inputs(reference, prepared), np.arange(len(expected)))
    agreement = float((expected.argmax(-1) == found.argmax(-1)).mean())
    divergence = float(kl_divergence(expected, found).mean())
    with capsys.disabled():
        line = f"agreement {agreement:.3f}, KL divergence {divergence:.4f} nats"
        print(f"\n{name} {precision} level 4 vs its own weights: {line}")  # noqa: T201
    # Chance would agree on one of several hundred; these bounds only catch a broken kernel.
    assert agreement > 0.25
    assert 0 <= divergence < 3


@pytest.mark.parametrize(("name", "precision"), GRAPHS)
def test_the_manifest_reports_agreement_of_every_path_with_the_float32_weights(
    name: str, precision: str
) -> None:
    quality = Bundle.open(bundle(name, precision, accuracy_level=4)).manifest.quality
    assert quality["tokens"] == 512
    graphs = Bundle.open(bundle(name, precision, accuracy_level=4)).manifest.graphs
    kernels = [f"tandem_{g.kv_dtype}" for g in graphs if g.kernels == "tandem"]
    assert list(quality["paths"]) == ["one_row", "prompt", *kernels]
    for found in quality["paths"].values():
        assert 0 < found["top1_agreement"] <= 1
        assert found["mean_kl_divergence"] > 0


def test_a_float32_bundle_reports_nothing_lost_but_by_the_fast_tower() -> None:
    assert list(Bundle.open(bundle("tied", "fp32")).manifest.quality) == ["tower"]
