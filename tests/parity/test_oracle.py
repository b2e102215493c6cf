"""The oracle's own greedy loop is transformers' `generate`.

The loop feeds positions and takes logits itself, so that no token may end it early; a mistake in
its positions would otherwise be a mistake in every proof that leans on it.
"""

import pytest
import torch

from tests.support.bundles import checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import oracle
from tests.support.talks import FIVE_IMAGES, SEVERAL_TURNS, TEXT_ONLY, Talk

TOKENS = 16
TOLERANCE = 1e-5  # the same operations on the same values


@pytest.mark.parametrize("talk", [TEXT_ONLY, FIVE_IMAGES, SEVERAL_TURNS], ids=lambda t: t.name)
@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_and_logits_are_those_of_generate(name: str, talk: Talk) -> None:
    reference = oracle(checkpoint(name))
    prepared = reference.prepare(talk.to_transformers(), talk.images())
    inputs = reference.processor(
        text=[prepared.text], images=talk.images() or None, return_tensors="pt"
    )
    with torch.no_grad():
        made = reference.model.generate(
            **inputs,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=None,
            max_new_tokens=TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
    found = reference.greedy(prepared, TOKENS)
    assert made.sequences[0, -TOKENS:].tolist() == list(found.token_ids)
    logits = torch.cat(made.logits).numpy()
    assert abs(logits - found.logits).max() <= TOLERANCE
