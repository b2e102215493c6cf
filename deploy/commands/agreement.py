"""How closely the services' numbers follow a reference's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.divergence import kl_divergence

EXACT_LOGITS = 1e-3  # two orders of summation in float32 differ by less


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over the T tokens of one answer, each judged after the same tokens before it."""

    tokens: int
    same_tokens: int  # positions where the reference's likeliest token is the one given
    largest_logit_difference: float
    mean_kl: float  # Kullback-Leibler divergence from the reference, nats per token

    @property
    def is_exact(self) -> bool:
        """Every token is the reference's, and logits differ by rounding only."""
        return self.same_tokens == self.tokens and self.largest_logit_difference <= EXACT_LOGITS

    @property
    def top1(self) -> float:
        """Share of positions with the same likeliest token."""
        return self.same_tokens / self.tokens

    def describe(self) -> str:
        """One line."""
        return (
            f"{self.same_tokens} of {self.tokens} tokens are transformers',"
            f" logits within {self.largest_logit_difference:.2g}, KL {self.mean_kl:.2g} nats"
        )


def compare(
    tokens: npt.NDArray[np.int32],
    logits: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
) -> Agreement:
    """Compares greedy tokens [T] and logits [T, vocab] with a reference's logits [T, vocab]."""
    return Agreement(
        tokens=len(tokens),
        same_tokens=int((reference.argmax(axis=-1) == tokens).sum()),
        largest_logit_difference=float(np.abs(logits - reference).max()),
        mean_kl=float(kl_divergence(reference, logits).mean()),
    )


def pooled(agreements: Sequence[Agreement]) -> Agreement:
    """Several answers as if they were one; each token counts the same."""
    tokens = sum(one.tokens for one in agreements)
    return Agreement(
        tokens=tokens,
        same_tokens=sum(one.same_tokens for one in agreements),
        largest_logit_difference=max(one.largest_logit_difference for one in agreements),
        mean_kl=sum(one.mean_kl * one.tokens for one in agreements) / tokens,
    )
