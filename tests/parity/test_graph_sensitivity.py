"""The tiny checkpoints can tell right from wrong: DeepStack and positions matter in them.

Without this, a parity test would pass for a graph that drops DeepStack on a model whose DeepStack
features change nothing.
"""

import numpy as np
import pytest

from tests.support.bundles import checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import Oracle, Prepared, oracle
from tests.support.talks import FIVE_IMAGES, TEXT_ONLY

MOST = 0.5  # of the argmaxes must change
MANY = 0.25  # of the placeholders' argmaxes must change when one level of several is left out


def prompt(name: str) -> tuple[Oracle, Prepared, slice]:
    """A prompt with images, and its tokens from the first image on."""
    reference = oracle(checkpoint(name))
    prepared = reference.prepare(FIVE_IMAGES.to_transformers(), FIVE_IMAGES.images())
    return reference, prepared, slice(int(prepared.mm_token_type_ids.argmax()), None)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    return float((before.argmax(-1) != after.argmax(-1)).mean())


@pytest.mark.parametrize("name", NAMES)
def test_dropping_deepstack_changes_most_argmaxes(name: str) -> None:
    reference, prepared, after = prompt(name)
    dropped = reference.logits(prepared, without_deepstack=True)
    assert changed(reference.logits(prepared)[after], dropped[after]) > MOST


@pytest.mark.parametrize("name", NAMES)
def test_plain_positions_change_most_argmaxes(name: str) -> None:
    reference, prepared, after = prompt(name)
    length = len(prepared.input_ids)
    plain = np.broadcast_to(np.arange(length), (3, length)).copy()
    moved = reference.logits(prepared, position_ids=plain)
    assert changed(reference.logits(prepared)[after], moved[after]) > MOST


@pytest.mark.parametrize("name", NAMES)
def test_every_single_deepstack_level_matters(name: str) -> None:
    reference, prepared, _ = prompt(name)
    visual = prepared.mm_token_type_ids != 0  # a level after the last layer reaches no other row
    whole = reference.logits(prepared)
    for level in range(len(reference.model.config.vision_config.deepstack_visual_indexes)):
        dropped = reference.logits(prepared, without_levels=(level,))
        assert changed(whole[visual], dropped[visual]) > MANY, f"level {level}"


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_do_not_collapse_into_one_token(name: str) -> None:
    reference = oracle(checkpoint(name))
    prepared = reference.prepare(TEXT_ONLY.to_transformers())
    assert len(set(reference.greedy(prepared, 32).token_ids)) > 4
