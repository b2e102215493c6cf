"""The figures of `tandem verify`."""

import numpy as np
import pytest

from deploy.commands.agreement import compare, pooled

LOGITS = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], dtype=np.float32)
TOKENS = np.array([1, 0], dtype=np.int32)


def test_equal_logits_agree_exactly() -> None:
    agreement = compare(TOKENS, LOGITS, LOGITS)
    assert agreement.is_exact
    assert (agreement.same_tokens, agreement.mean_kl) == (2, 0.0)


def test_another_likeliest_token_is_counted() -> None:
    reference = LOGITS.copy()
    reference[1] = [0.0, 3.0, 0.0]
    agreement = compare(TOKENS, LOGITS, reference)
    assert agreement.same_tokens == 1
    assert not agreement.is_exact


def test_logits_beyond_rounding_are_not_exact_though_the_tokens_are() -> None:
    agreement = compare(TOKENS, LOGITS, LOGITS + np.float32(0.01))
    assert agreement.same_tokens == 2
    assert not agreement.is_exact
    assert agreement.largest_logit_difference == pytest.approx(0.01, rel=1e-3)


def test_divergence_is_measured_from_the_reference() -> None:
    reference = np.log(np.array([[0.5, 0.5]], dtype=np.float32))
    logits = np.log(np.array([[0.25, 0.75]], dtype=np.float32))
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert compare(np.array([1]), logits, reference).mean_kl == pytest.approx(expected, rel=1e-5)


def test_pooled_answers_count_each_token_the_same() -> None:
    reference = np.log(np.array([[0.5, 0.5]], dtype=np.float32))
    logits = np.log(np.array([[0.25, 0.75]], dtype=np.float32))
    one = compare(np.array([1]), logits, reference)
    whole = pooled([one, compare(TOKENS, LOGITS, LOGITS)])
    assert (whole.tokens, whole.same_tokens) == (3, 2)
    assert whole.top1 == pytest.approx(2 / 3)
    assert whole.mean_kl == pytest.approx(one.mean_kl / 3)
    assert whole.largest_logit_difference == one.largest_logit_difference
