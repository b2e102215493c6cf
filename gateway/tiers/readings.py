"""What a vision tier found in files, remembered for the next question about one.

The frames of a video that are seen, and the pages of a PDF: a file that was seen before costs no
call, as its features cost none.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from blake3 import blake3

from gateway.media.pdfs import Page, PdfLimits
from gateway.media.videos import VideoSource
from gateway.request.conversation import FilePart
from gateway.tiers.vision import VisionClient
from protos.media.videos import FrameSampling, SampledFrames

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED = 128  # videos; of 768 frames each, some ten megabytes
_REMEMBERED_BYTES = 64 * 1024**2  # of pages: their images and texts


class _Remembered(Generic[K, V]):
    """What was found lately, the least recently used forgotten first.

    Args:
        most: Of what `size` counts, of all together.
        size: Of one.
    """

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self._most = most
        self._size = size
        self._held = 0
        self._values: OrderedDict[K, V] = OrderedDict()

    def find(self, key: K) -> V | None:
        """What was found for a key, if it is remembered."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: K, value: V) -> None:
        """Remembers it; another request may have asked at the same time, and its value stays."""
        if key not in self._values:
            self._values[key] = value
            self._held += self._size(value)
        while self._held > self._most:
            self._held -= self._size(self._values.popitem(last=False)[1])


class Samplings:
    """Has frames chosen."""

    def __init__(self, vision: VisionClient) -> None:
        self._vision = vision
        self._known = _Remembered[tuple[bytes, FrameSampling], SampledFrames](
            _REMEMBERED, lambda _: 1
        )

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
        sampled = self._known.find(key)
        if sampled is None:
            sampled = await self._vision.sample(
                video.file, sampling, field=video.field, request_id=request_id, by_s=by_s
            )
            self._known.keep(key, sampled)
        return sampled


class Renderings:
    """Has pages of PDFs made, one file after the other."""

    def __init__(self, vision: VisionClient) -> None:
        self._vision = vision
        self._known = _Remembered[tuple[bytes, int], tuple[Page, ...]](_REMEMBERED_BYTES, _size)

    async def of(
        self,
        files: Mapping[str, FilePart],
        limits: PdfLimits,
        *,
        request_id: str,
        by_s: float,
        hold: Callable[[int], None],
    ) -> dict[str, FilePart]:
        """The same PDFs with their pages.

        Args:
            files: All PDFs of a request by their places in it.
            limits: What they may be.
            request_id: Travels with the calls.
            by_s: When the answers must be here.
            hold: Called with the bytes of each file's pages; raises where there is no room.

        Raises:
            ServiceError: a PDF is refused, what the vision tier answered, or VISION_UNAVAILABLE.
        """
        for field, file in files.items():
            limits.check(file.data, field=field)
        count, found = 0, {}
        for field, file in files.items():
            pages = await self._of(file.data, limits, field, request_id, by_s)
            count += len(pages)
            limits.check_pages(count)
            hold(_size(pages))
            found[field] = replace(file, pages=pages)
        return found

    async def _of(
        self, file: bytes, limits: PdfLimits, field: str, request_id: str, by_s: float
    ) -> tuple[Page, ...]:
        key = await asyncio.to_thread(_digest, file), limits.page_pixels
        pages = self._known.find(key)
        if pages is None:
            pages = await self._vision.render(
                file, limits, field=field, request_id=request_id, by_s=by_s
            )
            self._known.keep(key, pages)
        return pages


def _size(pages: Sequence[Page]) -> int:
    return sum(len(page.image) + len(page.text) for page in pages)


def _digest(file: bytes) -> bytes:
    return blake3(file).digest()
