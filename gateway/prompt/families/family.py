"""What the prompt builder has to know about a model family."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.media.images import PlannedImage
from gateway.media.video_plans import PlannedVideo
from gateway.prompt.splice import SplicedPrompt, VisualSpan
from gateway.tools.format import ToolFormat
from protos.bundle.manifest import SpecialTokens
from protos.media.images import Grid


class Positions(NamedTuple):
    """Position ids, int32, shape [3, S], rows temporal, height, width; and the decode delta."""

    ids: npt.NDArray[np.int32]
    delta: int  # a cache length plus this is the next decode position; often negative


class ThoughtTokens(NamedTuple):
    """Ids of the added tokens around a thought."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFamily:
    """One family.

    How many tokens an image has is no part of it: that follows from the checkpoint's image
    settings, by a rule that both tiers share (`protos.media.images`).

    Attributes:
        name: The manifest's `family`.
        template_tokens: Fields of the manifest's `SpecialTokens` that the chat template writes;
            the tokenizer must have these tokens as added ones.
        spoken_tokens: Added tokens, none of them special, that models write in answers; a
            checkpoint may lack some.
        thought_tokens: Those of them before and behind a thought.
        tools: How its models call tools; None where they do not.
        expand: Makes placeholders of the markers in token ids; from the ids, the images and videos
            in prompt order, the special tokens, and what encodes a text. Raises InvalidRequest.
        position_ids: Positions of a prompt; from its length S, its spans, ascending, the grid of
            each span before merging, and the patches per placeholder's side.
    """

    name: str
    template_tokens: Sequence[str]
    spoken_tokens: Sequence[str]
    thought_tokens: tuple[str, str]
    tools: ToolFormat | None
    expand: Callable[
        [
            Sequence[int],
            Sequence[PlannedImage],
            Sequence[PlannedVideo],
            SpecialTokens,
            Callable[[str], list[int]],
        ],
        SplicedPrompt,
    ]
    position_ids: Callable[[int, Sequence[VisualSpan], Sequence[Grid], int], Positions]
