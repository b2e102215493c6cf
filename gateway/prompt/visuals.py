"""What a prompt shows: its videos as plans, and everything to encode in the order of its spans."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from gateway.media.images import PlannedImage, TierLimits
from gateway.media.video_plans import PlannedFrames, PlannedVideo, plan_video
from gateway.media.videos import VideoLimits, VideoSource, check_videos, sampling_of
from protos.media.videos import FrameSampling, SampledFrames, VideoSettings


class Visual(NamedTuple):
    """What one call encodes, and the spans of a prompt that its features fill, in order."""

    source: PlannedImage | PlannedFrames
    spans: range


class VideoPlanner:
    """Plans the videos of one bundle's prompts."""

    def __init__(self, settings: VideoSettings, limits: VideoLimits, digest_key: bytes) -> None:
        self.settings = settings
        self._limits = limits
        self._digest_key = digest_key

    def limits(self, tiers: Sequence[TierLimits] = ()) -> VideoLimits:
        """What videos of a request may be: the lower of our limits and the vision tiers'."""
        return self._limits.under(tiers)

    def samplings(
        self, sources: Sequence[VideoSource], tiers: Sequence[TierLimits] = ()
    ) -> list[FrameSampling]:
        """How a vision tier is to choose frames of each video that is a file, in order.

        Raises:
            InvalidRequest: a video at fault, named.
        """
        limits = self.limits(tiers)
        check_videos(sources, limits)
        files = (source for source in sources if source.file)
        return [sampling_of(source.sizing, self.settings, limits) for source in files]

    def plan(
        self,
        sources: Sequence[VideoSource],
        sampled: Sequence[SampledFrames],
        tiers: Sequence[TierLimits] = (),
    ) -> tuple[PlannedVideo, ...]:
        """Plans all videos of a request.

        Args:
            sources: In prompt order.
            sampled: What a vision tier chose of each that is a file, in order.
            tiers: What the vision tiers say videos may be.

        Raises:
            InvalidRequest: a video at fault, named.
        """
        limits = self.limits(tiers)
        check_videos(sources, limits)
        answers = iter(sampled)
        return tuple(
            plan_video(
                source,
                next(answers) if source.file else None,
                self.settings,
                limits=limits,
                digest_key=self._digest_key,
            )
            for source in sources
        )


def arranged(
    order: Sequence[int], images: Sequence[PlannedImage], videos: Sequence[PlannedVideo]
) -> tuple[Visual, ...]:
    """Everything to encode, in the order of the spans.

    Args:
        order: What each span shows; see `SplicedPrompt`.
        images: In prompt order.
        videos: The same; each of their pieces fills as many spans as it has temporal patches.
    """
    pieces = [piece for video in videos for piece in video.pieces]
    begins = accumulate((piece.grid.t for piece in pieces), initial=len(images))
    piece_at = dict(zip(begins, pieces, strict=False))
    visuals = []
    for span, index in enumerate(order):
        if index < len(images):
            visuals.append(Visual(images[index], range(span, span + 1)))
        elif index in piece_at:  # a piece's other temporal patches follow its first
            visuals.append(Visual(piece_at[index], range(span, span + piece_at[index].grid.t)))
    return tuple(visuals)
