"""Cosines of tokens, level by level."""

import numpy as np
import pytest

from deploy.export.vision.likeness import likeness


def features(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_the_same_direction_is_one_whatever_the_length() -> None:
    wanted = [features(3, 50, 8), features(3, 7, 8)]
    for level in likeness([one * 3 for one in wanted], wanted):
        assert level.least == pytest.approx(1) and level.mean == pytest.approx(1)


def test_one_bad_token_shows_in_its_level_alone() -> None:
    wanted = [features(2, 200, 16)]
    made = [wanted[0].copy()]
    made[0][1, 5] *= -1
    good, bad = likeness(made, wanted)
    assert good.least == pytest.approx(1)
    assert bad.least == pytest.approx(-1)
    assert bad.mean == pytest.approx(0.99) and bad.first_percentile > 0.9


def test_features_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError):
        likeness([features(2, 3, 4)], [features(2, 3, 5)])
    with pytest.raises(ValueError):
        likeness([], [])
