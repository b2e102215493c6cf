"""Damaged files of every format end no replica; `tests/bench/fuzz_images.py` sends more of them."""

from tests.bench.fuzz_images import fuzz

FILES = 260  # twenty of each kind of image


async def test_every_damaged_image_is_encoded_or_refused() -> None:
    found = await fuzz(FILES, seed=1)
    assert sum(found["outcomes"].values()) == FILES
    assert found["outcomes"]["INVALID_IMAGE"] > FILES / 4
    assert found["outcomes"]["encoded"] > FILES / 20
