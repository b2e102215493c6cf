"""Graphs with float16 weights compute exactly, in float32."""

import copy

import numpy as np
import pytest
import torch

from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle, checkpoint
from tests.support.graphs import GraphSession
from tests.support.oracle import Oracle, oracle
from tests.support.talks import FIVE_IMAGES

TOLERANCE = 1e-3  # as for float32: only the order of sums differs


def rounded(reference: Oracle) -> Oracle:
    """The oracle with the products' weights rounded to float16, as the graph stores them."""
    changed = copy.copy(reference)
    changed.model = copy.deepcopy(reference.model)
    head = changed.model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    linear = [
        module
        for module in changed.model.model.language_model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for module in [*linear, head]:
        module.weight.data = module.weight.data.half().float()
    return changed


@pytest.mark.parametrize("name", ["untied", "deep"])
def test_float16_weights_compute_in_float32(name: str) -> None:
    reference = rounded(oracle(checkpoint(name)))
    graph = GraphSession(bundle(name, "fp16"))
    prepared = reference.prepare(FIVE_IMAGES.to_transformers(), FIVE_IMAGES.images())
    expected = reference.logits(prepared)
    found = graph.run(graph.inputs(reference, prepared), np.arange(len(expected)))
    assert np.abs(found - expected).max() < TOLERANCE


def test_float16_weights_take_half_the_room() -> None:
    sizes = [
        Bundle.open(bundle("untied", precision)).manifest.files["decoder/model.onnx.data"].size
        for precision in ("fp16", "fp32")
    ]
    rope = 2 * 4096 * 12 * 4  # sines and cosines stay float32
    assert sizes[0] - rope < 0.55 * (sizes[1] - rope)
