"""How large an image becomes: what its request asks for, under the server's ceiling."""

from typing import Any

import pytest

from gateway.media.sizing import LOW_DETAIL_TOKENS, Detail, ImageSizing, planned_size
from protos.media.formats import ImageHeader
from protos.media.images import Grid, ImageSettings, PixelRange
from protos.wire.errors import InvalidRequest

SETTINGS = ImageSettings(
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=4096,
    max_pixels=1 << 24,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)
PHOTO = (1000, 800)


def planned(
    size: tuple[int, int], most_tokens: int | None = None, **sizing: Any
) -> tuple[PixelRange, Grid]:
    header = ImageHeader(format="PNG", width=size[0], height=size[1])
    wanted = ImageSizing(**sizing)
    return planned_size(header, wanted, SETTINGS, most_tokens=most_tokens, field="x")


def test_an_image_above_the_ceiling_is_resized_to_it() -> None:
    assert planned(PHOTO)[1].tokens(2) == 25 * 31
    assert planned(PHOTO, most_tokens=256) == ((4096, 256 * 1024), Grid(1, 28, 34))
    assert planned((64, 64), most_tokens=256) == ((4096, 256 * 1024), Grid(1, 4, 4))


@pytest.mark.parametrize("size", [(3000, 2000), (3, 600), (600, 3), (1, 1), (31, 5000)])
@pytest.mark.parametrize("least", [None, 1, 4096, 256 * 1024, 1 << 30])
@pytest.mark.parametrize("most", [None, 1 << 30])
def test_no_wish_gets_an_image_above_the_ceiling(
    size: tuple[int, int], least: int | None, most: int | None
) -> None:
    _, grid = planned(size, most_tokens=256, min_pixels=least, max_pixels=most)
    assert grid.tokens(2) <= 256
    _, low = planned(size, detail=Detail.LOW, min_pixels=least, max_pixels=most)
    assert low.tokens(2) <= LOW_DETAIL_TOKENS


def test_detail_and_areas_of_a_request_choose_the_size() -> None:
    assert planned(PHOTO, detail=Detail.HIGH) == planned(PHOTO)
    assert planned(PHOTO, detail=Detail.LOW)[1] == Grid(1, 28, 34)
    assert planned(PHOTO, max_pixels=50_176) == ((4096, 50_176), Grid(1, 12, 14))
    assert planned(PHOTO, max_pixels=1024)[0] == (1024, 1024)
    assert planned((64, 64), min_pixels=50_176)[1] == Grid(1, 14, 14)


@pytest.mark.parametrize(
    ("sizing", "param"),
    [
        ({"min_pixels": 0}, "min_pixels"),
        ({"max_pixels": -1}, "max_pixels"),
        ({"max_pixels": 1 << 31}, "max_pixels"),
        ({"min_pixels": 11, "max_pixels": 10}, "min_pixels"),
    ],
)
def test_areas_out_of_range_are_refused(sizing: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ImageSizing(**sizing).check(field="x")
    assert caught.value.param == f"x.{param}"
