"""Videos in real workers: what crosses their border, and files that try to end them."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from protos.media.videos import FrameSampling
from protos.wire.errors import InvalidRequest, Reason
from tests.support.prompts import encoded, processor_bundle, processor_files
from tests.support.videos import animation, moving, video_file
from vision_service.jobs import EncodedFrames, VideoFile
from vision_service.videos.boxed import BoxedVideos
from vision_service.videos.clip import ClipLimits

FRAMES = moving(20, 64, 48)
FILES = (
    video_file(FRAMES, rate=10),
    video_file(FRAMES, rate=10, container="webm", codec="libvpx"),
    video_file(FRAMES, rate=10, container="matroska", codec="mpeg4"),
    animation(FRAMES[:5], "GIF", 100),
    animation(FRAMES[:5], "WEBP", 100),
)
MUTATIONS = 300
REASONS = (
    Reason.INVALID_VIDEO,
    Reason.INVALID_IMAGE,
    Reason.IMAGE_TOO_LARGE,
    Reason.VIDEO_TOO_LARGE,
    Reason.UNSUPPORTED_MEDIA,
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def videos(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BoxedVideos]:
    folder: Path = tmp_path_factory.mktemp("boxed")
    bundle: Bundle = processor_bundle(processor_files(folder / "files"), folder / "bundle")
    reading = BoxedVideos(
        bundle,
        ClipLimits(max_pixels=1 << 20, max_seconds=60.0),
        max_bytes=1 << 20,
        max_patches=4096,
        limit_s=20.0,
    )
    yield reading
    reading.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_frames_are_chosen_and_become_patches(videos: BoxedVideos) -> None:
    seen = await videos.sample(FILES[0], FrameSampling(frame_count=4))
    assert seen.indices == (0, 6, 13, 19)
    assert seen.seconds == (0.0, 0.6, 1.3, 1.9)
    assert (seen.width, seen.height) == (64, 48)
    source = VideoFile(data=FILES[0], indices=seen.indices)
    pixels, grid = await videos.patches(source, Grid(2, 4, 6))
    assert (pixels.shape, grid) == ((48, 1536), Grid(2, 4, 6))
    assert np.isfinite(pixels).all() and pixels.std() > 0.1


async def test_frames_as_images_become_the_same_patches_as_in_a_lossless_file(
    videos: BoxedVideos,
) -> None:
    images = tuple(encoded(Image.fromarray(frame), "PNG") for frame in FRAMES[:4])
    file = animation(FRAMES[:4], "WEBP", 100)
    stills, _ = await videos.patches(EncodedFrames(images=images), Grid(2, 4, 6))
    moving_, _ = await videos.patches(VideoFile(data=file, indices=(0, 1, 2, 3)), Grid(2, 4, 6))
    assert np.array_equal(stills, moving_)


@pytest.mark.parametrize(
    ("source", "param"),
    [
        (VideoFile(data=FILES[0], indices=(0, 20)), "video.frame_indices"),
        (VideoFile(data=bytes(2 << 20), indices=(0, 1)), "video"),
        (VideoFile(data=b"", indices=(0, 1)), "video"),
        (EncodedFrames(images=(b"x", b"y")), "image"),
        (
            EncodedFrames(
                images=tuple(
                    encoded(Image.new("RGB", size), "PNG") for size in ((64, 48), (48, 64))
                )
            ),
            "video",
        ),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(
    videos: BoxedVideos, source: VideoFile | EncodedFrames, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await videos.patches(source, Grid(1, 4, 6))
    assert caught.value.param == param


def mutated(rng: random.Random) -> bytes:
    """A video with some bytes changed, dropped or repeated, most of them in its header."""
    data = bytearray(rng.choice(FILES))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(data), rng.choice((64, 800, len(data)))))
        kind = rng.random()
        if kind < 0.6:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind < 0.75:
            data[at : at + 4] = rng.randbytes(4)
        elif kind < 0.9:
            del data[at : at + rng.choice((1, 4, 64))]
        else:
            data[at:at] = data[at : at + rng.choice((1, 8, 256))]
    return bytes(data)


async def test_mutated_files_are_read_or_refused_and_their_readers_live(
    videos: BoxedVideos, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(7)
    read = 0
    for _ in range(MUTATIONS):
        data = mutated(rng)
        try:
            seen = await videos.sample(data, FrameSampling(frame_count=4))
            await videos.patches(VideoFile(data=data, indices=seen.indices), Grid(2, 4, 6))
            read += 1
        except InvalidRequest as error:
            assert error.reason in REASONS, error.message
            assert error.param in ("video", "video.frame_indices")
    assert 0 < read < MUTATIONS
    assert caplog.text == ""
    assert (await videos.sample(FILES[0], FrameSampling())).width == 64
