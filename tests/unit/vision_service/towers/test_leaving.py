"""Images leave a running pass: the others are what they are without them, to the bit."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kernels import library
from protos.media.images import Grid
from tests.support import small_tower
from tests.support.small_tower import BLOCK_STEPS, CONFIG, MERGER_STEPS, STEPS
from tests.support.towers import random_pixels
from vision_service.families.qwen3_vl import QWEN3_VL
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Abandoned, Members
from vision_service.towers.onnx_tower import OnnxTower
from vision_service.towers.torch_tower import TorchTower

SETS = ("avx2", "avxvnni", "avx512", "amx")  # in the order of `tandem_allow`, from 1 on
# One of two frames; none is as many rows as a kernel takes at once.
GRIDS = (Grid(1, 6, 14), Grid(2, 10, 8), Grid(1, 4, 18), Grid(1, 2, 2))
MERGED = CONFIG["spatial_merge_size"] ** 2

needs_operators = pytest.mark.skipif(
    library.path() is None, reason="Tandem's operators do not run here"
)


@pytest.fixture(scope="module", params=["exact", "fast"])
def tower(request: pytest.FixtureRequest) -> OnnxTower:
    return OnnxTower.load(small_tower.bundle(), form=request.param, threads=2)


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every one that this processor has: each cuts rows in its own way."""
    loaded = ctypes.CDLL(str(library.path()))
    loaded.tandem_instruction_set.restype = ctypes.c_char_p
    loaded.tandem_allow(1 + SETS.index(request.param))
    found = "amx" if loaded.tandem_has_tiles() else loaded.tandem_instruction_set().decode()
    try:
        if found != request.param:
            pytest.skip(f"this processor has no {request.param}")
        yield request.param
    finally:
        loaded.tandem_allow(len(SETS))


def batch(*places: int) -> list[Patches]:
    """The images of these places, all of them where there are none."""
    chosen = places or range(len(GRIDS))
    return [Patches(random_pixels(CONFIG, GRIDS[place], place), GRIDS[place]) for place in chosen]


def assert_same(made: FloatArray, wanted: FloatArray) -> None:
    assert made.size and made.dtype == np.float32
    np.testing.assert_array_equal(made.view(np.uint32), wanted.view(np.uint32))


@needs_operators
def test_whoever_leaves_at_any_step_changes_nothing_for_the_others(
    tower: OnnxTower, instruction_set: str
) -> None:
    whole, without = tower.encode(batch()), tower.encode(batch(0, 2, 3))
    for step in range(STEPS + 1):
        members = Members(len(GRIDS))
        members.leave(1, step=step)
        made = tower.encode(batch(), members)
        assert made[1].shape == (3, 0, CONFIG["out_hidden_size"])
        for image, alone in zip((0, 2, 3), without, strict=True):
            assert_same(made[image], whole[image])
            assert_same(made[image], alone)


@needs_operators
@pytest.mark.parametrize("form", ["exact", "fast"])
def test_the_rows_of_an_image_that_left_are_not_computed(form: str) -> None:
    tower = OnnxTower.load(small_tower.bundle(), form=form, threads=2)
    blocks, mergers = CONFIG["depth"], 1 + len(CONFIG["deepstack_visual_indexes"])
    # The embedding of the patches, then operators of blocks; those of mergers have a row a token.
    steps = [1 + BLOCK_STEPS[form] * blocks, MERGER_STEPS * mergers]
    whole = [grid.patches * steps[0] + grid.patches // MERGED * steps[1] for grid in GRIDS]
    computed = []
    for step in range(sum(steps) + 1):
        members = Members(len(GRIDS))
        members.leave(1, step=step)
        tower.encode(batch(), members)
        assert np.delete(members.rows_computed, 1).tolist() == [whole[0], whole[2], whole[3]]
        computed.append(members.rows_computed[1])
    patches = GRIDS[1].patches
    assert (computed[0], computed[-1]) == (0, whole[1])
    # In whichever order they run, each operator's rows are spared by leaving right before it.
    assert sorted(np.diff(computed)) == [patches // MERGED] * steps[1] + [patches] * steps[0]


@needs_operators
@pytest.mark.parametrize("stays", range(len(GRIDS)))
def test_all_but_one_leave_one_after_another(tower: OnnxTower, stays: int) -> None:
    (alone,) = tower.encode(batch(stays))
    members = Members(len(GRIDS))
    for step, image in enumerate(set(range(len(GRIDS))) - {stays}):
        members.leave(image, step=3 + 4 * step)
    assert_same(tower.encode(batch(), members)[stays], alone)


@needs_operators
def test_what_an_image_that_left_held_is_nobodys_failure(tower: OnnxTower) -> None:
    images, members = batch(), Members(len(GRIDS))
    images[1].pixel_values[:] = np.nan
    with pytest.raises(FloatingPointError):
        tower.encode(images)
    members.leave(1, step=1)
    assert_same(tower.encode(images, members)[0], tower.encode(batch(0))[0])


@needs_operators
def test_images_leave_at_random_moments_of_two_passes_at_once(tower: OnnxTower) -> None:
    whole = tower.encode(batch())
    random, until_s = np.random.default_rng(0), time.monotonic() + 1.0

    def encode(seed: int) -> int:
        left = 0
        while time.monotonic() < until_s:
            members = Members(len(GRIDS))
            delays = random.uniform(0, 4e-3, 3)
            timers = [threading.Timer(s, members.leave, [i]) for i, s in enumerate(delays)]
            for timer in timers:
                timer.start()
            made = tower.encode(batch(), members)
            for timer in timers:
                timer.join()
            left += sum(not part.size for part in made)
            for part, wanted in zip(made, whole, strict=True):
                if part.size:
                    assert_same(part, wanted)
            assert made[3].size
        return left

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(encode, range(2))) > 0


def test_the_portable_form_computes_all_and_returns_those_that_stay() -> None:
    portable = OnnxTower.load(small_tower.bundle(), form="portable", threads=2)
    assert portable.computes_all
    members = Members(len(GRIDS))
    members.leave(1)
    made, whole = portable.encode(batch(), members), portable.encode(batch())
    assert not made[1].size
    for image in (0, 2, 3):
        assert_same(made[image], whole[image])


# ---------------------------------------------------------------------------------------------
# PyTorch


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    made = QWEN3_VL.build(CONFIG)
    weights = load_file(small_tower.bundle() / "vision" / "model.safetensors")
    made.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return made.eval()


@pytest.fixture(scope="module")
def torch_tower(model: torch.nn.Module) -> TorchTower:
    return TorchTower(model, QWEN3_VL, device="cpu", merge_size=CONFIG["spatial_merge_size"])


@contextmanager
def during(block: torch.nn.Module, act: Callable[[], None]) -> Iterator[None]:
    """Does something as soon as a block has begun."""
    hook = block.register_forward_pre_hook(lambda *_: act())
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("block", range(CONFIG["depth"]))
def test_images_leave_between_the_blocks_in_pytorch(
    model: torch.nn.Module, torch_tower: TorchTower, block: int
) -> None:
    without = torch_tower.encode(batch(0, 2, 3))
    members = Members(len(GRIDS))
    with during(model.get_submodule(f"blocks.{block}"), lambda: members.leave(1)):
        made = torch_tower.encode(batch(), members)
    assert not made[1].size
    for image, alone in zip((0, 2, 3), without, strict=True):
        np.testing.assert_allclose(made[image], alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    # The next block is without it.
    blocks = [CONFIG["depth"], block + 1, CONFIG["depth"], CONFIG["depth"]]
    assert members.rows_computed.tolist() == [
        count * grid.patches for count, grid in zip(blocks, GRIDS, strict=True)
    ]


def test_a_pass_that_all_leave_ends_before_the_next_block_in_pytorch(
    model: torch.nn.Module, torch_tower: TorchTower
) -> None:
    members = Members(len(GRIDS))
    with during(model.get_submodule("blocks.1"), members.abandon), pytest.raises(Abandoned):
        torch_tower.encode(batch(), members)
    assert members.rows_computed.tolist() == [2 * grid.patches for grid in GRIDS]
