"""The video readers of a vision process: some processes, one job each at a time.

A reader that dies costs its job one retry in a fresh one. A file that ends two of them is bad, and
is refused by its digest from then on.
"""

import asyncio
import hashlib
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from protos.media.limits import invalid_video, video_too_large
from protos.media.videos import FrameSampling, SampledFrames
from vision_service.jobs import (
    EncodedFrames,
    Patches,
    VideoFile,
    error_from_plain,
)
from vision_service.videos import messages
from vision_service.videos.clip import CORRUPT, FIELD, ClipLimits
from vision_service.videos.messages import Message

logger = logging.getLogger(__name__)

_READERS = 2  # jobs at once; bounds their memory
_MEMORY_MIB = 4096  # address space of one; what it really uses is a tenth
_ATTEMPTS = 2
_REMEMBERED = 256  # files that ended readers
_ROOT = Path(__file__).parents[2]


class ReaderDied(Exception):
    """The process ended before it answered."""


class VideoReaders:
    """Reads videos; see `jobs.Videos`. `stop` once, at the end."""

    def __init__(self, bundle: Bundle, limits: ClipLimits, *, max_bytes: int) -> None:
        self._bundle = bundle
        self._limits = limits
        self._max_bytes = max_bytes
        vision = bundle.manifest.vision
        self._width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        self._free = asyncio.Semaphore(_READERS)
        self._idle: list[asyncio.subprocess.Process] = []
        self._deadly: OrderedDict[bytes, None] = OrderedDict()

    async def sample(self, file: bytes, sampling: FrameSampling) -> SampledFrames:
        """Chooses frames of a file; see `jobs.Videos`."""
        answer = await self._answer({"kind": "sample", "sampling": list(sampling)}, [file])
        fields = answer.fields
        return SampledFrames(
            tuple(fields["indices"]), tuple(fields["seconds"]), fields["width"], fields["height"]
        )

    async def patches(self, source: VideoFile | EncodedFrames, grid: Grid) -> Patches:
        """Decodes frames and makes patches of them; see `jobs.Videos`."""
        if isinstance(source, VideoFile):
            job = {"kind": "file", "indices": list(source.indices), "grid": list(grid)}
            answer = await self._answer(job, [source.data])
        else:
            job = {"kind": "stills", "grid": list(grid)}
            answer = await self._answer(job, source.images)
        pixels = np.frombuffer(answer.pieces[0], np.float32)
        return Patches(pixels.reshape(grid.patches, self._width), grid)

    async def stop(self) -> None:
        """Ends all readers."""
        while self._idle:
            await _end(self._idle.pop())

    async def _answer(self, job: Mapping[str, object], pieces: messages.Pieces) -> Message:
        size = sum(len(piece) for piece in pieces)
        if size > self._max_bytes:
            raise video_too_large(FIELD, "bytes", size, self._max_bytes, setting="max_video_mib")
        limits = {"max_pixels": self._limits.max_pixels, "max_seconds": self._limits.max_seconds}
        answer = await self._survived(Message({**job, "limits": limits}, pieces))
        if "traceback" in answer.fields:
            logger.error("unhandled error in a video reader\n%s", answer.fields["traceback"])
        if "error" in answer.fields:
            raise error_from_plain(answer.fields)
        return answer

    async def _survived(self, message: Message) -> Message:
        digest = await asyncio.to_thread(_digest, message.pieces)
        if digest not in self._deadly:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return await self._run(message)
                except ReaderDied:
                    logger.warning("a video reader died of its job (attempt %d)", attempt)
            self._deadly[digest] = None
            while len(self._deadly) > _REMEMBERED:
                self._deadly.popitem(last=False)
        raise invalid_video(FIELD, CORRUPT)

    async def _run(self, message: Message) -> Message:
        async with self._free:
            reader = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await _exchange(reader, message)
            except BaseException:  # also a cancelled job: nobody waits for it any more
                await _end(reader)
                raise
            self._idle.append(reader)
            return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vision_service.videos.reader",
            str(self._bundle.path.resolve()),
            str(_MEMORY_MIB),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            # A math library's idle threads would take address space.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )


async def _exchange(reader: asyncio.subprocess.Process, message: Message) -> Message:
    assert reader.stdin is not None and reader.stdout is not None
    try:
        reader.stdin.writelines(messages.written(message))
        await reader.stdin.drain()
        head = await reader.stdout.readexactly(messages.HEAD_BYTES)
        text = await reader.stdout.readexactly(messages.text_size(head))
        fields, sizes = messages.fields_of(text)
        pieces = [await reader.stdout.readexactly(size) for size in sizes]
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ReaderDied from error
    return Message(fields, pieces)


async def _end(reader: asyncio.subprocess.Process) -> None:
    if reader.returncode is None:
        with suppress(ProcessLookupError):
            reader.kill()
    await reader.wait()


def _digest(pieces: messages.Pieces) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
