"""The ONNX graphs of the tower against `model.visual`, in float32, at every level."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as checks
from hypothesis import strategies as st

from deploy.export.vision.likeness import likeness
from protos.media.images import Grid
from tests.support import bundles, towers
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import Float32Array, oracle
from vision_service.jobs import Patches
from vision_service.towers.members import Abandoned, Members
from vision_service.towers.onnx_tower import FORMS, OnnxTower

TOLERANCE = 1e-5  # relative to the largest value of a level
EXACT_FORMS = ("portable", "exact")
# Cosines of the fast form's tokens with float32: mean and first percentile of every level. The tiny
# towers are narrower than real ones, so fewer roundings average out.
LEAST_MEAN, LEAST_PERCENTILE = 0.9995, 0.999

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=EXACT_FORMS)
def tower(name: str, request: pytest.FixtureRequest) -> OnnxTower:
    return OnnxTower.load(towers.bundle(name), form=request.param, threads=2)


def batch_of(pixels: list[Float32Array], grids: list[Grid]) -> list[Patches]:
    return [Patches(image, grid) for image, grid in zip(pixels, grids, strict=True)]


def assert_close(ours: Float32Array, theirs: Float32Array) -> None:
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    for level, (mine, wanted) in enumerate(zip(ours, theirs, strict=True)):
        scale = np.abs(wanted).max()
        assert scale > 0
        assert np.abs(mine - wanted).max() <= TOLERANCE * scale, f"level {level}"


def reference(name: str, pixels: list[Float32Array], grids: list[Grid]) -> Float32Array:
    features = oracle(bundles.checkpoint(name)).features(np.concatenate(pixels), np.array(grids))
    return np.stack([features.embeddings, *features.deepstack])


# Frames, and rows and columns in merge groups.
EXTENTS = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@checks(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EXTENTS, min_size=1, max_size=5), st.integers(0, 2**32))
@example([(1, 1, 1)], 0)
@example([(1, 1, 40), (1, 30, 1)], 0)
@example([(1, 16, 24)], 0)
def test_any_batch_of_images_is_encoded_as_by_the_whole_model(
    name: str, tower: OnnxTower, extents: list[tuple[int, int, int]], seed: int
) -> None:
    config = towers.config(name)
    merge = config["spatial_merge_size"]
    grids = [Grid(t, h * merge, w * merge) for t, h, w in extents]
    pixels = [towers.random_pixels(config, grid, seed + i) for i, grid in enumerate(grids)]
    ours = tower.encode(batch_of(pixels, grids))
    assert [len(one[0]) for one in ours] == [grid.tokens(merge) for grid in grids]
    assert_close(np.concatenate(ours, axis=1), reference(name, pixels, grids))


def test_levels_follow_the_checkpoints_deepstack_indexes(name: str, tower: OnnxTower) -> None:
    assert tower.level_count == 1 + len(towers.config(name)["deepstack_visual_indexes"])


def test_what_is_no_number_is_refused(name: str, tower: OnnxTower) -> None:
    config = towers.config(name)
    grid = Grid(1, 2 * config["spatial_merge_size"], config["spatial_merge_size"])
    pixels = towers.random_pixels(config, grid, 0)
    pixels[0, 0] = np.nan
    with pytest.raises(FloatingPointError):
        tower.encode([Patches(pixels, grid)])


def test_an_abandoned_run_ends_early(tower: OnnxTower, name: str) -> None:
    config = towers.config(name)
    merge = config["spatial_merge_size"]
    grid = Grid(4, 24 * merge, 24 * merge)
    members = Members(1)
    members.leave(0)
    with pytest.raises(Abandoned):
        tower.encode([Patches(towers.random_pixels(config, grid, 0), grid)], members)


def test_the_fast_form_keeps_every_tokens_direction(name: str) -> None:
    fast = OnnxTower.load(towers.bundle(name), form="fast", threads=2)
    config = towers.config(name)
    merge = config["spatial_merge_size"]
    grids = [Grid(1, h * merge, w * merge) for h, w in ((12, 17), (1, 30), (9, 9))]
    pixels = [towers.random_pixels(config, grid, seed) for seed, grid in enumerate(grids)]
    made, wanted = fast.encode(batch_of(pixels, grids)), reference(name, pixels, grids)
    for level in likeness([np.concatenate(made, axis=1)], [wanted]):
        assert level.mean >= LEAST_MEAN
        assert level.first_percentile >= LEAST_PERCENTILE


@pytest.mark.parametrize("form", ["exact", "fast"])
def test_an_image_does_not_depend_on_what_is_encoded_beside_it(name: str, form: str) -> None:
    tower = OnnxTower.load(towers.bundle(name), form=form, threads=2)
    config = towers.config(name)
    merge = config["spatial_merge_size"]
    grids = [Grid(1, 3 * merge, 7 * merge), Grid(1, 11 * merge, 5 * merge)]
    pixels = [towers.random_pixels(config, grid, seed) for seed, grid in enumerate(grids)]
    together = tower.encode(batch_of(pixels, grids))
    for image, grid, made in zip(pixels, grids, together, strict=True):
        (alone,) = tower.encode([Patches(image, grid)])
        assert_close(made, alone)


@pytest.mark.parametrize("form", FORMS)
def test_neither_torch_nor_transformers_is_imported(form: str) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from protos.media.images import Grid
from vision_service.jobs import Patches
from vision_service.towers.onnx_tower import OnnxTower
tower = OnnxTower.load(Path({str(towers.bundle("odd"))!r}), form={form!r}, threads=1)
tower.encode([Patches(np.zeros((9, 384), np.float32), Grid(1, 3, 3))])
assert not {{"torch", "transformers", "onnx", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
