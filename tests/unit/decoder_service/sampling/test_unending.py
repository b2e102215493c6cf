"""An output goes on until it has its least number of tokens."""

import numpy as np

from decoder_service.sampling.unending import Unending


class OnlyOne:
    """A form in which nothing but one token may follow."""

    def __init__(self, token_id: int) -> None:
        self.token_id = token_id

    def mask(self, scores: np.ndarray) -> None:
        kept = scores[self.token_id]
        scores[:] = -np.inf
        scores[self.token_id] = kept


def masked(unending: Unending) -> list[int]:
    scores = np.arange(5, dtype=np.float32)
    unending.mask(scores)
    return np.flatnonzero(np.isfinite(scores)).tolist()


def test_no_end_may_follow() -> None:
    assert masked(Unending({1, 4}, None)) == [0, 2, 3]


def test_what_the_form_bans_stays_banned() -> None:
    assert masked(Unending({1}, OnlyOne(2))) == [2]


def test_a_form_that_is_complete_ends() -> None:
    assert masked(Unending({1, 4}, OnlyOne(4))) == [4]
