"""A replica turns plain jobs into plain results, errors included."""

import asyncio
import functools
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from protos.media.images import Grid, ImageSettings, PixelRange
from protos.wire.errors import Overloaded, Reason
from tests.unit.vision_service.fakes import FakeTower
from vision_service.box.box import ParserBox
from vision_service.jobs import Encoded, EncodedImage, EncodeJob, Patches, error_from_plain
from vision_service.media.boxed import MODULES
from vision_service.replicas.replica import Replica, ReplicaSettings, image_plan

IMAGES = ImageSettings(
    patch_size=2,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=16,
    max_pixels=4096,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)


ReplicaOf = Callable[..., Replica]


@pytest.fixture(scope="module")
def box() -> Iterator[ParserBox]:
    made = ParserBox(workers=2, memory_bytes=256 * 1024**2, modules=MODULES)
    yield made
    made.close()


@pytest.fixture
def replica_of(box: ParserBox) -> ReplicaOf:
    """Makes replicas that share the test module's workers."""
    return functools.partial(_replica, box)


def _replica(box: ParserBox, tower: FakeTower, **changes: Any) -> Replica:
    values: dict[str, Any] = {
        "bundle": "unused",
        "device": "cpu",
        "tower": "auto",
        "dtype": "float32",
        "threads": 1,
        "max_batch_patches": 1024,
        "max_queued_patches": 2048,
        "max_image_bytes": 1_000_000,
        "max_image_pixels": 10_000,
        "max_image_patches": 500,
    }
    settings = ReplicaSettings(**{**values, **changes})
    return Replica(settings, image_plan(settings, IMAGES), tower, box)


def image(width: int = 16, height: int = 8, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "PNG", **options)
    return buffer.getvalue()


def job(data: bytes, expected_grid: Grid | None = None) -> dict[str, Any]:
    return EncodeJob(source=EncodedImage(data=data, expected_grid=expected_grid)).to_plain()


def patches(value: float, grid: Grid) -> dict[str, Any]:
    pixels = np.full((grid.patches, 24), value, dtype=np.float32)
    return EncodeJob(source=Patches(pixels, grid)).to_plain()


async def refusal(replica: Replica, plain: dict[str, Any]) -> Any:
    answer = await replica.encode(plain)
    return error_from_plain(answer)


async def test_a_image_becomes_features_and_timings(replica_of: ReplicaOf) -> None:
    answer = await replica_of(FakeTower()).encode(job(image()))
    encoded = Encoded.from_plain(answer)
    assert encoded.grid == Grid(1, 4, 8)
    assert encoded.features.shape == (2, 8, 4)
    assert np.allclose(encoded.features, 2)  # white is 1 after normalizing
    assert encoded.summary.preprocess_ms > 0
    assert encoded.summary.encode_ms > 0
    assert encoded.summary.queue_ms >= 0


async def test_patches_are_encoded_as_they_are(replica_of: ReplicaOf) -> None:
    answer = await replica_of(FakeTower()).encode(patches(0, Grid(1, 4, 4)))
    assert Encoded.from_plain(answer).features.shape == (2, 4, 4)


async def test_an_answer_holds_no_class_of_ours(replica_of: ReplicaOf) -> None:
    answer = await replica_of(FakeTower()).encode(job(image()))
    assert {type(value) for value in answer.values()} == {tuple, np.ndarray, dict}


async def test_a_grid_other_than_the_expected_one_is_refused(replica_of: ReplicaOf) -> None:
    tower = FakeTower()
    error = await refusal(replica_of(tower), job(image(), expected_grid=Grid(1, 8, 4)))
    assert (error.reason, error.param) == (Reason.SHAPE_MISMATCH, "expected_grid_thw")
    assert tower.batches == []


async def test_areas_of_a_job_take_the_place_of_the_checkpoints(replica_of: ReplicaOf) -> None:
    for areas, grid in (((16, 64), Grid(1, 2, 4)), ((512, 4096), Grid(1, 8, 16))):
        source = EncodedImage(data=image(), expected_grid=grid, areas=PixelRange(*areas))
        answer = await replica_of(FakeTower()).encode(EncodeJob(source=source).to_plain())
        encoded = Encoded.from_plain(answer)
        assert encoded.grid == grid
        assert encoded.features.shape[1] == grid.tokens(2)


async def test_exif_orientation_turns_the_grid(replica_of: ReplicaOf) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = job(image(exif=exif), expected_grid=Grid(1, 8, 4))
    assert Encoded.from_plain(await replica_of(FakeTower()).encode(plain)).grid == Grid(1, 8, 4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.INVALID_IMAGE),
        (b"GIF89a", Reason.INVALID_IMAGE),
        (b"hello", Reason.UNSUPPORTED_MEDIA),
        (image()[:-30], Reason.INVALID_IMAGE),
        (image(101, 100), Reason.IMAGE_TOO_LARGE),  # pixels
        (image(64, 64), Reason.IMAGE_TOO_LARGE),  # patches
        (image(300, 1), Reason.INVALID_IMAGE),
        (bytes(1_000_001), Reason.IMAGE_TOO_LARGE),
    ],
)
async def test_a_bad_image_comes_back_as_a_plain_error(
    replica_of: ReplicaOf, data: bytes, reason: Reason
) -> None:
    error = await refusal(replica_of(FakeTower()), job(data))
    assert (error.reason, error.param) == (reason, "image")


async def test_a_failing_tower_is_reported_without_detail_for_the_client(
    replica_of: ReplicaOf,
) -> None:
    answer = await replica_of(FakeTower()).encode(patches(-1, Grid(1, 4, 4)))
    assert error_from_plain(answer).reason is Reason.INTERNAL
    assert "tower" not in error_from_plain(answer).message
    assert "does not like" in answer["traceback"]


async def test_a_full_queue_refuses_images_before_they_are_decoded(replica_of: ReplicaOf) -> None:
    tower = FakeTower()
    replica = replica_of(tower, max_queued_patches=40)
    tower.gate.clear()
    first = asyncio.create_task(replica.encode(job(image())))
    await asyncio.to_thread(tower.entered.wait, 10)
    error = await refusal(replica, job(image()))
    tower.gate.set()
    assert isinstance(error, Overloaded)
    assert error.retry_after_s is not None
    assert "features" in await first


async def test_a_cancelled_job_gives_its_place_in_the_queue_back(replica_of: ReplicaOf) -> None:
    tower = FakeTower()
    replica = replica_of(tower, max_queued_patches=40)
    tower.gate.clear()
    first = asyncio.create_task(replica.encode(job(image())))
    await asyncio.to_thread(tower.entered.wait, 10)
    first.cancel()
    await asyncio.wait({first})
    tower.gate.set()
    assert "features" in await replica.encode(job(image()))
