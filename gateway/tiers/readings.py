"""Frames of videos as a vision tier chose them, remembered for the next question about a video."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from blake3 import blake3

from gateway.media.videos import VideoSource
from gateway.tiers.vision import VisionClient
from protos.media.videos import FrameSampling, SampledFrames

_REMEMBERED = 128  # videos; of 768 frames each, some ten megabytes


class Samplings:
    """Has frames chosen; a video that was seen before costs no call, as its features cost none."""

    def __init__(self, vision: VisionClient) -> None:
        self._vision = vision
        self._known: OrderedDict[tuple[bytes, FrameSampling], SampledFrames] = OrderedDict()

    async def of(
        self,
        videos: Sequence[VideoSource],
        samplings: Sequence[FrameSampling],
        *,
        request_id: str,
        by_s: float,
    ) -> list[SampledFrames]:
        """The frames that are seen of each video that is a file, in order.

        Args:
            videos: All videos of a request.
            samplings: How frames of each that is a file are to be chosen.
            request_id: Travels with the calls.
            by_s: When the answers must be here.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
        """
        files = [video for video in videos if video.file]
        return [
            await self._of(video, sampling, request_id, by_s)
            for video, sampling in zip(files, samplings, strict=True)
        ]

    async def _of(
        self, video: VideoSource, sampling: FrameSampling, request_id: str, by_s: float
    ) -> SampledFrames:
        key = await asyncio.to_thread(_digest, video.file), sampling
        if key not in self._known:
            self._known[key] = await self._vision.sample(
                video.file, sampling, field=video.field, request_id=request_id, by_s=by_s
            )
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def _digest(file: bytes) -> bytes:
    return blake3(file).digest()
