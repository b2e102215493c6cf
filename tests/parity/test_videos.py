"""Videos against transformers' own processor, positions and tower, run for real.

Sampling, times, sizes, token ids, positions and pixels: of random videos, files and lists of
frames, with the checkpoint's settings and a request's.
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.media.images import PlannedImage
from gateway.media.videos import VideoSizing
from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.prompt.inputs import PromptLimits, videos_of
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    VideoPart,
)
from protos.bundle.manifest import Bundle
from protos.media.images import Grid, PixelRange
from protos.media.videos import FrameSampling, SampledFrames, VideoSettings, video_grid
from protos.wire.errors import InvalidRequest
from tests.support import bundles, torchvision_schemas, video_oracle
from tests.support.oracle import Float32Array, Oracle, oracle
from tests.support.prompts import encoded, opened, png, processor_bundle, talk
from tests.support.video_oracle import GivenVideo
from tests.support.videos import KINDS, RgbArray, moving, video_file
from vision_service.jobs import Patches
from vision_service.media.preprocess import patches_shape
from vision_service.towers.torch_tower import TorchTower
from vision_service.videos.clip import ClipLimits
from vision_service.videos.opening import open_clip
from vision_service.videos.patches import frames_to_patches
from vision_service.videos.stills import still_frames

torchvision_schemas.install()
from PIL import Image  # noqa: E402
from transformers.models.qwen3_vl.video_processing_qwen3_vl import (  # noqa: E402
    smart_resize as reference_resize,
)
from transformers.video_utils import read_video_pyav  # noqa: E402

PIXEL_TOLERANCE = 1e-6
LIMITS = ClipLimits()


@pytest.fixture(scope="module")
def reference() -> Oracle:
    return oracle(bundles.checkpoint("tied"))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    folder: Path = tmp_path_factory.mktemp("videos") / "bundle"
    return PromptBuilder(processor_bundle(bundles.checkpoint("tied"), folder))


def asked(*parts: Part) -> Conversation:
    return talk(Message(role=Role.USER, content=parts))


def as_messages(conversation: Conversation) -> list[dict[str, Any]]:
    kinds = {TextPart: "text", ImagePart: "image", VideoPart: "video"}
    (message,) = conversation.messages
    assert isinstance(message.content, tuple)
    content = [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": kinds[type(part)]}
        for part in message.content
    ]
    return [{"role": "user", "content": content}]


def built(builder: PromptBuilder, conversation: Conversation) -> PreparedPrompt:
    """What the gateway makes of it, the vision tier's answers included."""
    videos = videos_of(conversation)
    files = [video.file for video in videos if video.file]
    samplings = builder.videos.samplings(videos)
    return builder.prepare(
        conversation,
        sampled=[sampled(file, how) for file, how in zip(files, samplings, strict=True)],
    )


def sampled(file: bytes, sampling: FrameSampling) -> SampledFrames:
    clip = open_clip(file, LIMITS)
    return clip.timing.sampled(sampling, clip.width, clip.height)


def pixels_of(prompt: PreparedPrompt, settings: VideoSettings) -> Float32Array:
    """The patches of all pieces of all videos, as the vision tier makes them."""
    made = []
    for source, _ in prompt.visuals:
        if isinstance(source, PlannedImage):
            continue
        frames: Iterator[RgbArray]
        if source.file:
            frames = open_clip(source.file, LIMITS).frames(source.indices)
        else:
            frames = still_frames(source.images, LIMITS)
        made.append(np.empty(patches_shape(source.grid, settings.frames), np.float32))
        frames_to_patches(frames, source.grid, settings, made[-1])
    return np.concatenate(made)


def assert_equal(
    prompt: PreparedPrompt, wanted: video_oracle.PreparedVideos, settings: VideoSettings
) -> None:
    assert prompt.input_ids.tolist() == wanted.input_ids.tolist()
    assert np.array_equal(prompt.position_ids, wanted.position_ids)
    assert prompt.position_delta == wanted.delta
    covered = [span.offset + row for span in prompt.spans for row in range(span.length)]
    assert covered == np.flatnonzero(wanted.mm_token_type_ids).tolist()
    pixels = pixels_of(prompt, settings)
    assert pixels.shape == wanted.pixel_values_videos.shape
    assert np.abs(pixels - wanted.pixel_values_videos).max() <= PIXEL_TOLERANCE


def all_frames(file: bytes) -> GivenVideo:
    """A whole file as transformers' PyAV reader would give it, however many frames it claims."""
    with av.open(io.BytesIO(file), "r") as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        return GivenVideo(
            frames=[
                np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                for frame in container.decode(video=0)
            ],
            fps=float(rate),
        )


@st.composite
def files(draw: st.DrawFn) -> bytes:
    container, codec = draw(st.sampled_from(KINDS))
    count = draw(st.integers(2, 40))
    width, height = (2 * draw(st.integers(8, 70)) for _ in "wh")
    rate = draw(st.sampled_from([1, 5, 10, 24, 25, 30, 60]))
    every = draw(st.sampled_from([1, 5, 12, 60]))
    return video_file(
        moving(count, width, height, seed=count),
        rate=rate,
        container=container,
        codec=codec,
        key_every=every,
    )


@given(file=files(), text=st.sampled_from(["", "What moves?", "<2.0 seconds>"]))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_random_video_becomes_what_transformers_makes_of_it(
    builder: PromptBuilder, reference: Oracle, file: bytes, text: str
) -> None:
    conversation = asked(VideoPart(file=file), TextPart(text=text))
    wanted = video_oracle.prepare(reference, as_messages(conversation), [all_frames(file)])
    assert_equal(built(builder, conversation), wanted, builder.videos.settings)


@given(
    fps=st.sampled_from([0.5, 1, 2, 3.5, 30]),
    least=st.integers(1, 6),
    more=st.integers(1, 20),
    rate=st.sampled_from([7, 24, 50]),
    count=st.integers(2, 60),
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_requests_own_sampling_is_that_of_transformers(
    builder: PromptBuilder,
    reference: Oracle,
    fps: float,
    least: int,
    more: int,
    rate: int,
    count: int,
) -> None:
    file = video_file(moving(count, 48, 32), rate=rate, codec="mpeg4")
    most = max(2, least + more)
    sizing = VideoSizing(fps=fps, min_frames=least, max_frames=most)
    conversation = asked(TextPart(text="See"), VideoPart(file=file, sizing=sizing))
    with video_oracle.settings(reference, min_frames=least, max_frames=most):
        try:
            wanted = video_oracle.prepare(
                reference, as_messages(conversation), [all_frames(file)], fps=fps
            )
        except ValueError:  # fewer frames than a temporal patch has
            with pytest.raises(InvalidRequest):
                built(builder, conversation)
            return
    assert_equal(built(builder, conversation), wanted, builder.videos.settings)


def test_a_wanted_number_of_frames_is_that_of_transformers(
    builder: PromptBuilder, reference: Oracle
) -> None:
    file = video_file(moving(9, 64, 48), rate=3, codec="mpeg4")
    for count in (2, 5, 9, 12):
        conversation = asked(VideoPart(file=file, sizing=VideoSizing(frame_count=count)))
        with video_oracle.settings(reference, fps=None):
            wanted = video_oracle.prepare(
                reference, as_messages(conversation), [all_frames(file)], num_frames=count
            )
        assert_equal(built(builder, conversation), wanted, builder.videos.settings)


@given(
    frames=st.integers(2, 900),
    height=st.integers(1, 1500),
    width=st.integers(1, 1500),
    least=st.sampled_from([1, 4096, 1 << 20]),
    most=st.sampled_from([1 << 20, 4 << 20, 25_165_824]),
)
@example(frames=5, height=48, width=80, least=1, most=1 << 20)  # ties on every side
@example(frames=768, height=2160, width=3840, least=4096, most=25_165_824)
@settings(max_examples=200, deadline=None)
def test_sizes_and_refusals_equal_transformers(
    builder: PromptBuilder, frames: int, height: int, width: int, least: int, most: int
) -> None:
    settings = builder.videos.settings.frames
    try:
        tall, wide = reference_resize(
            frames, height, width, factor=settings.factor, min_pixels=least, max_pixels=most
        )
    except ValueError:
        with pytest.raises(InvalidRequest):
            video_grid(frames, height, width, settings, PixelRange(least, most), field="video")
        return
    grid = video_grid(frames, height, width, settings, PixelRange(least, most), field="video")
    patch = settings.patch_size
    assert (grid.h * patch, grid.w * patch) == (tall, wide)
    assert grid.t == (frames + 1) // 2


@pytest.mark.parametrize(
    ("sizing", "tokens", "areas"),
    [
        (VideoSizing(total_pixels=60_000), None, (4096, 60_000)),
        (VideoSizing(max_pixels=4_096), None, (4096, 6 * 4096)),
        (VideoSizing(min_pixels=20_000), None, (6 * 20_000, 25_165_824)),
        (VideoSizing(min_pixels=20_000, total_pixels=50_000), None, (50_000, 50_000)),
        (VideoSizing(), 24, (4096, 24 * 2048)),
    ],
)
def test_areas_of_a_request_and_of_the_server_are_transformers_size(
    reference: Oracle,
    tmp_path: Path,
    sizing: VideoSizing,
    tokens: int | None,
    areas: tuple[int, int],
) -> None:
    limits = PromptLimits()
    if tokens is not None:
        limits = replace(limits, videos=replace(limits.videos, max_tokens=tokens))
    bundle = processor_bundle(bundles.checkpoint("tied"), tmp_path / "bundle")
    builder = PromptBuilder(bundle, limits=limits)
    file = video_file(moving(6, 160, 120), rate=2, codec="mpeg4")
    conversation = asked(VideoPart(file=file, sizing=sizing))
    wanted = video_oracle.prepare(
        reference,
        as_messages(conversation),
        [all_frames(file)],
        size={"shortest_edge": areas[0], "longest_edge": areas[1]},
    )
    assert_equal(built(builder, conversation), wanted, builder.videos.settings)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_list_of_frames_with_times_is_what_transformers_makes_of_chosen_frames(
    builder: PromptBuilder, reference: Oracle, count: int
) -> None:
    frames = moving(count, 70, 50)
    images = tuple(encoded(Image.fromarray(frame), "PNG") for frame in frames)
    seconds = [0.0, 0.5, 2.25, 2.25, 9.95][:count]
    conversation = asked(VideoPart(frames=images, seconds=tuple(seconds)), TextPart(text="So?"))
    chosen = GivenVideo(frames=frames, fps=1.0, places=seconds)
    wanted = video_oracle.prepare(reference, as_messages(conversation), [chosen])
    assert_equal(built(builder, conversation), wanted, builder.videos.settings)
    at_a_rate = asked(VideoPart(frames=images, sizing=VideoSizing(fps=4)), TextPart(text="So?"))
    chosen = GivenVideo(frames=frames, fps=4.0, places=list(range(count)))
    wanted = video_oracle.prepare(reference, as_messages(conversation), [chosen])
    assert_equal(built(builder, at_a_rate), wanted, builder.videos.settings)


def test_videos_and_images_of_one_message_keep_their_places(
    builder: PromptBuilder, reference: Oracle
) -> None:
    files = [video_file(moving(count, 64, 48), rate=4, codec="mpeg4") for count in (7, 4)]
    picture = png(70, 50)
    conversation = asked(
        VideoPart(file=files[0]),
        TextPart(text="a"),
        ImagePart(data=picture),
        VideoPart(file=files[1]),
    )
    wanted = video_oracle.prepare(
        reference,
        as_messages(conversation),
        [all_frames(file) for file in files],
        [opened(picture)],
    )
    prompt = built(builder, conversation)
    assert_equal(prompt, wanted, builder.videos.settings)
    grids = [Grid(*grid) for grid in wanted.video_grid_thw.tolist()]
    flat = [grid._replace(t=1) for grid in grids for _ in range(grid.t)]
    assert sorted(prompt.grids) == sorted(
        [*flat, *(Grid(*grid) for grid in wanted.more["image_grid_thw"].tolist())]
    )


def test_mp4_files_are_read_as_by_transformers_own_reader(reference: Oracle) -> None:
    file = video_file(moving(50, 96, 64), rate=24)
    processor = reference.processor.video_processor
    frames, metadata = read_video_pyav(io.BytesIO(file), processor.sample_frames)
    ours = sampled(file, FrameSampling())
    assert list(ours.indices) == list(metadata.frames_indices)
    assert list(ours.seconds) == metadata.timestamps
    assert (ours.width, ours.height) == (metadata.width, metadata.height)
    assert np.array_equal(np.stack(list(open_clip(file, LIMITS).frames(ours.indices))), frames)


def test_a_video_in_pieces_has_the_features_of_the_whole(reference: Oracle, tmp_path: Path) -> None:
    bundle = processor_bundle(bundles.checkpoint("tied"), tmp_path / "bundle")
    usual = PromptLimits()
    small = replace(usual, videos=replace(usual.videos, max_piece_patches=60))
    builder = PromptBuilder(bundle, limits=small)
    file = video_file(moving(13, 128, 96), rate=2, codec="mpeg4")
    conversation = asked(VideoPart(file=file))
    wanted = video_oracle.prepare(reference, as_messages(conversation), [all_frames(file)])
    prompt = built(builder, conversation)
    assert_equal(prompt, wanted, builder.videos.settings)
    assert len(prompt.visuals) > 3
    tower = TorchTower.load(Bundle.open(bundles.bundle("tied")))
    pixels, pieces, at = pixels_of(prompt, builder.videos.settings), [], 0
    for visual in prompt.visuals:
        grid = visual.source.grid
        (made,) = tower.encode([Patches(pixels[at : at + grid.patches], grid)])
        pieces.append(made)
        at += grid.patches
    features = reference.features(wanted.pixel_values_videos, wanted.video_grid_thw)
    for level, theirs in enumerate([features.embeddings, *features.deepstack]):
        ours = np.concatenate([piece[level] for piece in pieces])
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
