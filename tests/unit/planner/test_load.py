"""Loads: fields of files and flags, sizes, and what is refused."""

from typing import Any

import pytest

from planner.fields import PlanError
from planner.load import ImageSize, Load


def test_sizes_become_patches_and_tokens() -> None:
    load = Load.of({"sizes": "1024x768:3,448x448"})
    assert [(size.tokens, size.patches, size.weight) for size in load.sizes] == [
        (768, 3072, 3.0),
        (196, 784, 1.0),
    ]
    assert load == Load.of({"sizes": ["1024x768:3", "448x448"]})


def test_what_is_left_out_has_its_default() -> None:
    assert Load.of({"images": 2}) == Load(images=2)
    assert Load().sizes == (ImageSize(width=1024, height=768),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pictures": 1}, "pictures is unknown, expected one of arrivals_cv,"),
        ({"images": -1}, "images is -1, expected at least 0"),
        ({"images": float("nan")}, "images is nan, expected at least 0"),
        ({"images": 0}, "images and texts together is 0"),
        ({"images": True}, "images is true, expected a number"),
        ({"sizes": "large"}, 'sizes is "large", expected WIDTHxHEIGHT'),
        ({"sizes": [7]}, "sizes has 7, expected WIDTHxHEIGHT"),
        ({"sizes": "64x64:1.1.1"}, 'sizes\'s weight is "1.1.1", expected a number'),
        ({"sizes": "64x64:0"}, "sizes's weight is 0.0, expected more than 0"),
        ({"repeat": 1.5}, "repeat is 1.5, expected at most 1"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"seconds": 20}, "warm_up_s is 30, expected less than seconds (20)"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(given: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as caught:
        Load.of(given)
    assert said in str(caught.value)
