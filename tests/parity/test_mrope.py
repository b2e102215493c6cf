"""MRoPE positions and delta against transformers' get_rope_index."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.prompt.families.qwen3_vl import position_ids
from gateway.prompt.splice import VisualSpan
from protos.media.images import Grid
from tests.support import bundles
from tests.support.oracle import oracle


class Placed(NamedTuple):
    """Text tokens before an image, and the image's merged rows and columns."""

    text_before: int
    rows: int
    columns: int


# At least one token stands between images in every prompt: <|vision_end|><|vision_start|>.
PLACED = st.builds(Placed, st.integers(1, 20), st.integers(1, 12), st.integers(1, 12))


@pytest.fixture(scope="module", params=["tied", "odd"])
def model(request: pytest.FixtureRequest) -> Any:
    return oracle(bundles.checkpoint(request.param)).model.model


@given(placed=st.lists(PLACED, max_size=6), text_after=st.integers(1, 20))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_positions_and_delta_equal_get_rope_index(
    model: Any, placed: Sequence[Placed], text_after: int
) -> None:
    merge = model.config.vision_config.spatial_merge_size
    spans, grids, kinds = [], [], []
    for text_before, rows, columns in placed:
        kinds += [0] * text_before
        spans.append(VisualSpan(offset=len(kinds), length=rows * columns, digest=b""))
        grids.append(Grid(1, rows * merge, columns * merge))
        kinds += [1] * (rows * columns)
    kinds += [0] * text_after
    wanted, delta = model.get_rope_index(
        torch.zeros(1, len(kinds), dtype=torch.long),
        torch.tensor([kinds]),
        image_grid_thw=torch.tensor([list(grid) for grid in grids]) if grids else None,
    )
    positions = position_ids(len(kinds), spans, grids, merge)
    assert positions.ids.dtype == np.int32
    assert np.array_equal(positions.ids, wanted[:, 0].numpy())
    assert positions.delta == int(delta)


def test_a_prompt_that_ends_with_a_image_counts_its_columns() -> None:
    spans = (VisualSpan(offset=2, length=6, digest=b""),)
    positions = position_ids(8, spans, (Grid(1, 4, 6),), 2)
    assert positions.ids.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2],
        [0, 1, 2, 2, 2, 3, 3, 3],
        [0, 1, 2, 3, 4, 2, 3, 4],
    ]
    assert positions.delta == -3
