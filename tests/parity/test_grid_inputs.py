"""The grid inputs against transformers: table interpolation, rotary angles, attention borders."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st

from protos.media.grid_inputs import GridSettings, grid_inputs
from protos.media.images import Grid
from tests.support import torchvision_schemas

torchvision_schemas.install()
from transformers import vision_utils  # noqa: E402
from transformers.models.qwen3_vl.modeling_qwen3_vl import (  # noqa: E402
    Qwen3VLVisionConfig,
    Qwen3VLVisionRotaryEmbedding,
)

UNLOADED = checks(deadline=None, max_examples=60)  # whatever else the machine does
SIDES = st.one_of(st.integers(1, 12), st.sampled_from([25, 48, 49, 97, 180]))


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Grid], GridSettings]:
    """Images of unlike sizes, and a tower to encode them with."""
    merge = draw(st.integers(1, 3))
    grids = draw(
        st.lists(
            st.builds(
                lambda t, h, w: Grid(t, h * merge, w * merge), st.integers(1, 3), SIDES, SIDES
            ).filter(lambda grid: grid.patches <= 10_000),
            min_size=1,
            max_size=4,
        )
    )
    settings = GridSettings(
        table_side=draw(st.sampled_from([1, 2, 7, 16, 48])),
        merge_size=merge,
        head_dim=4 * draw(st.integers(1, 20)),
        rope_theta=draw(st.sampled_from([100.0, 10_000.0])),
    )
    return grids, settings


@UNLOADED
@given(batches())
def test_the_position_table_is_read_as_transformers_reads_it(
    batch: tuple[list[Grid], GridSettings],
) -> None:
    grids, settings = batch
    ours = grid_inputs(grids, settings)
    indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        torch.tensor(grids),
        num_grid_per_side=settings.table_side,
        mode="bilinear",
        align_corners=True,
        spatial_merge_size=settings.merge_size,
    )
    np.testing.assert_array_equal(ours.position_indices, indices.T.numpy())
    np.testing.assert_array_equal(ours.position_weights, weights.T.numpy())
    assert ours.position_weights.dtype == np.float32


@UNLOADED
@given(batches())
def test_rotary_angles_are_transformers(batch: tuple[list[Grid], GridSettings]) -> None:
    grids, settings = batch
    ours = grid_inputs(grids, settings)
    config = Qwen3VLVisionConfig(
        hidden_size=settings.head_dim,
        num_heads=1,
        rope_parameters={"rope_type": "axial", "rope_theta": settings.rope_theta},
    )
    positions = vision_utils.get_vision_position_ids(torch.tensor(grids), settings.merge_size)
    cosines, sines = Qwen3VLVisionRotaryEmbedding(config)(torch.zeros(1), positions)
    half = settings.head_dim // 2
    for mine, theirs in ((ours.rotary_cos, cosines), (ours.rotary_sin, sines)):
        assert mine.shape == (len(positions), half) and mine.dtype == np.float32
        # Frequencies differ in the last bit; it is multiplied with the row or column.
        tolerance = 3e-7 * (1 + int(positions.max()))
        np.testing.assert_allclose(mine, theirs[:, :half].numpy(), rtol=0, atol=tolerance)
        np.testing.assert_array_equal(theirs[:, :half].numpy(), theirs[:, half:].numpy())


@UNLOADED
@given(batches())
def test_frames_attend_to_themselves_alone(batch: tuple[list[Grid], GridSettings]) -> None:
    grids, settings = batch
    theirs = vision_utils.get_vision_cu_seqlens(torch.tensor(grids))
    np.testing.assert_array_equal(grid_inputs(grids, settings).segment_bounds, theirs.numpy())


def test_settings_come_from_the_config() -> None:
    config = {
        "num_position_embeddings": 2304,
        "spatial_merge_size": 2,
        "hidden_size": 1152,
        "num_heads": 16,
    }
    settings = GridSettings.from_config(config)
    assert settings == GridSettings(table_side=48, merge_size=2, head_dim=72, rope_theta=1e4)
    stated = GridSettings.from_config({**config, "rope_parameters": {"rope_theta": 500}})
    assert stated.rope_theta == 500
