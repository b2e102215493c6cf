"""What transformers makes of videos: its own sampling, processor, positions and answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.support.oracle import Float32Array, Greedy, Int64Array, Oracle
from tests.support.videos import RgbArray

from transformers.video_utils import VideoMetadata  # isort: skip  # after torchvision's schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenVideo:
    """A video as users of transformers pass it: all its frames, and what is known of them."""

    frames: Sequence[RgbArray]
    fps: float
    # Frames that were chosen beforehand, by their places; empty: the processor chooses.
    places: Sequence[float] = ()

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """All frames, uint8 [F, height, width, 3]."""
        return np.stack(self.frames)

    @property
    def metadata(self) -> VideoMetadata:
        """What transformers' video readers would say."""
        places = list(self.places) or None
        return VideoMetadata(len(self.frames), fps=self.fps, frames_indices=places)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVideos:
    """A conversation as the model takes it; S prompt length, P patches, V videos."""

    input_ids: Int64Array  # [S]
    mm_token_type_ids: Int64Array  # [S], 0 text, 1 image, 2 video
    pixel_values_videos: Float32Array  # [P, D]
    video_grid_thw: Int64Array  # [V, 3]
    position_ids: Int64Array  # [3, S]
    delta: int
    more: Mapping[str, Any]  # the images' inputs


@contextmanager
def settings(oracle: Oracle, **values: Any) -> Iterator[None]:
    """The video processor with other settings, which its calls do not take: `min_frames=2`."""
    processor = oracle.processor.video_processor
    before = {name: getattr(processor, name) for name in values}
    for name, value in values.items():
        setattr(processor, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(processor, name, value)


def prepare(
    oracle: Oracle,
    messages: Sequence[Mapping[str, Any]],
    videos: Sequence[GivenVideo],
    images: Sequence[Any] = (),
    **options: Any,
) -> PreparedVideos:
    """Runs the chat template and the processor.

    Args:
        oracle: Whose.
        messages: The conversation, in the template's form.
        videos: In prompt order, all with chosen frames or none.
        images: PIL images, in prompt order.
        options: Of the video processor, such as fps or size.
    """
    text = oracle.processor.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=True
    )
    inputs = oracle.processor(
        text=[text],
        images=list(images) or None,
        videos=[video.pixels for video in videos],
        return_tensors="pt",
        videos_kwargs={
            "video_metadata": [video.metadata for video in videos],
            "do_sample_frames": not videos[0].places,
            **options,
        },
    )
    kinds = inputs["mm_token_type_ids"]
    more = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    positions, delta = oracle.model.model.get_rope_index(
        inputs["input_ids"],
        kinds,
        image_grid_thw=more.get("image_grid_thw"),
        video_grid_thw=inputs["video_grid_thw"],
    )
    return PreparedVideos(
        input_ids=inputs["input_ids"][0].numpy(),
        mm_token_type_ids=kinds[0].numpy().astype(np.int64),
        pixel_values_videos=inputs["pixel_values_videos"].numpy(),
        video_grid_thw=inputs["video_grid_thw"].numpy(),
        position_ids=positions[:, 0].numpy(),
        delta=int(delta.flatten()[0]),
        more=more,
    )


@torch.no_grad()
def greedy(oracle: Oracle, prepared: PreparedVideos, tokens: int) -> Greedy:
    """Takes exactly `tokens` greedy tokens through the whole model; no token ends it early."""
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(prepared.input_ids)[None],
        "pixel_values_videos": torch.from_numpy(prepared.pixel_values_videos),
        "video_grid_thw": torch.from_numpy(prepared.video_grid_thw),
        **prepared.more,
    }
    length = len(prepared.input_ids)
    positions = torch.from_numpy(prepared.position_ids)[:, None]
    rows, ids, past = [], [], None
    for step in range(tokens):
        output = oracle.model(
            **inputs, position_ids=positions, past_key_values=past, logits_to_keep=1
        )
        past = output.past_key_values
        rows.append(output.logits[0, -1].numpy())
        ids.append(int(rows[-1].argmax()))
        inputs = {"input_ids": torch.tensor([[ids[-1]]])}
        positions = torch.full((3, 1, 1), length + step + prepared.delta)
    return Greedy(token_ids=tuple(ids), logits=np.stack(rows))
