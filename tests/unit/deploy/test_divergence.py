"""The divergence of next-token distributions."""

import numpy as np
import pytest

from deploy.divergence import kl_divergence


def test_equal_logits_and_shifted_ones_do_not_diverge() -> None:
    logits = np.array([[1, 2, 3], [-5, 0, 700]], np.float32)
    assert kl_divergence(logits, logits) == pytest.approx([0, 0])
    assert kl_divergence(logits, logits + 10) == pytest.approx([0, 0])


def test_the_divergence_is_from_the_reference() -> None:
    reference = np.log(np.array([[0.75, 0.25]], np.float32))
    found = np.log(np.array([[0.5, 0.5]], np.float32))
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert kl_divergence(reference, found) == pytest.approx([expected], rel=1e-6)
