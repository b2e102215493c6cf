"""Resized sizes, grids and token counts against transformers' image processor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.media.images import PlannedImage
from gateway.media.sizing import Detail, ImageSizing
from gateway.prompt.builder import PromptBuilder
from gateway.request.conversation import ImagePart, Message, Role, TextPart
from protos.media import images as images
from protos.media.images import Grid, ImageSettings, PixelRange
from protos.wire.errors import InvalidRequest, Reason
from tests.support import bundles, torchvision_schemas
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import oracle
from tests.support.prompts import images_of, png, processor_bundle, talk, transformers_messages

torchvision_schemas.install()
from transformers import AutoImageProcessor  # noqa: E402
from transformers.models.qwen2_vl.image_processing_qwen2_vl import (  # noqa: E402
    smart_resize as reference_resize,
)

SIDE = st.one_of(st.integers(1, 5000), st.integers(1, 400).map(lambda n: 16 * n))


def settings_with(patch: int, merge: int, least: int, most: int) -> ImageSettings:
    return ImageSettings.from_mapping(
        {
            "size": {"shortest_edge": least, "longest_edge": most},
            "patch_size": patch,
            "temporal_patch_size": 2,
            "merge_size": merge,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
    )


@given(
    height=SIDE,
    width=SIDE,
    patch=st.sampled_from([8, 14, 16]),
    merge=st.integers(1, 3),
    least=st.sampled_from([1, 4096, 65536]),
    most=st.sampled_from([65536, 1 << 20, 1 << 24]),
)
@example(height=48, width=80, patch=16, merge=2, least=1, most=1 << 24)  # both sides are ties
@example(height=16, width=16, patch=16, merge=2, least=1, most=1 << 24)  # rounds to no pixel
@example(height=4097, width=4095, patch=16, merge=2, least=65536, most=1 << 24)
@example(height=3, width=600, patch=16, merge=2, least=65536, most=1 << 24)  # exactly 200
@example(height=3, width=601, patch=16, merge=2, least=65536, most=1 << 24)
@settings(max_examples=500, deadline=None)
def test_sizes_and_refusals_equal_transformers(
    height: int, width: int, patch: int, merge: int, least: int, most: int
) -> None:
    ours = settings_with(patch, merge, least, most)
    try:
        wanted = reference_resize(height, width, patch * merge, least, most)
    except ValueError:
        with pytest.raises(InvalidRequest) as caught:
            images.smart_resize(height, width, ours, field="image")
        assert (caught.value.reason, caught.value.param) == (Reason.INVALID_IMAGE, "image")
    else:
        assert images.smart_resize(height, width, ours) == wanted


@pytest.fixture(scope="module", params=NAMES)
def processor(request: pytest.FixtureRequest) -> Any:
    folder = bundles.checkpoint(request.param)
    return folder, AutoImageProcessor.from_pretrained(folder)


@given(height=SIDE, width=SIDE)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_patch_counts_equal_the_checkpoints_processor(
    processor: tuple[Path, Any], height: int, width: int
) -> None:
    folder, reference = processor
    if max(height, width) > 200 * min(height, width):
        return
    ours = ImageSettings.from_file(folder / "preprocessor_config.json")
    grid = images.grid_thw(height, width, ours)
    patches = reference.get_number_of_image_patches(height, width)
    assert grid.t * grid.h * grid.w == patches
    assert grid.tokens(ours.merge_size) == patches // reference.merge_size**2


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    folder = tmp_path_factory.mktemp("sizes") / "bundle"
    return PromptBuilder(processor_bundle(bundles.checkpoint("tied"), folder))


@pytest.mark.parametrize(
    ("sizing", "areas"),
    [
        (ImageSizing(), None),
        (ImageSizing(min_pixels=16_384, max_pixels=50_176), (16_384, 50_176)),
        (ImageSizing(max_pixels=2048), (2048, 2048)),
        (ImageSizing(min_pixels=400_000, max_pixels=500_000), (400_000, 500_000)),
        (ImageSizing(detail=Detail.LOW, min_pixels=1), (1, 256 * 1024)),
    ],
)
@pytest.mark.parametrize("size", [(600, 800), (700, 20), (90, 60)])
def test_a_prompt_with_areas_equals_that_of_transformers_with_this_size(
    builder: PromptBuilder,
    monkeypatch: pytest.MonkeyPatch,
    sizing: ImageSizing,
    areas: tuple[int, int] | None,
    size: tuple[int, int],
) -> None:
    parts = (TextPart(text="a"), ImagePart(data=png(*size), sizing=sizing), TextPart(text="b"))
    conversation = talk(Message(role=Role.USER, content=parts))
    actual = builder.prepare(conversation)
    reference = oracle(bundles.checkpoint("tied"))
    if areas is not None:
        (visual,) = actual.visuals
        assert isinstance(visual.source, PlannedImage)
        assert visual.source.areas == PixelRange(*areas)
        processor = reference.processor.image_processor
        edges = type(processor.size)(shortest_edge=areas[0], longest_edge=areas[1])
        monkeypatch.setattr(processor, "size", edges)
    wanted = reference.prepare(transformers_messages(conversation), images_of(conversation))
    assert wanted.image_grid_thw is not None
    assert [list(grid) for grid in actual.grids] == wanted.image_grid_thw.tolist()
    assert actual.input_ids.tolist() == wanted.input_ids.tolist()
    assert np.array_equal(actual.position_ids, wanted.position_ids)
    assert actual.position_delta == wanted.delta


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_empty_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        images.grid_thw(*size, settings_with(16, 2, 65536, 1 << 24), field="image")
    assert caught.value.reason is Reason.INVALID_IMAGE


def test_the_reference_image_of_300_by_400_pixels_has_108_tokens() -> None:
    ours = settings_with(16, 2, 65536, 1 << 24)
    assert images.grid_thw(300, 400, ours) == Grid(1, 18, 24)
    assert Grid(1, 18, 24).tokens(ours.merge_size) == 108
