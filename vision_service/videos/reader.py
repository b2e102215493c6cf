"""A video reader: a process that decodes what clients send, and may die of it.

    python -m vision_service.videos.reader BUNDLE MEMORY_MIB

Jobs come on standard input and answers go to standard output (see messages.py), one at a time. It
ends with its input, and with the process that started it.
"""

import ctypes
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import BinaryIO

from protos.media.images import Grid
from protos.media.limits import video_too_large
from protos.media.videos import SETTINGS_NAME, FrameSampling, VideoSettings
from protos.wire.channels import MIB
from protos.wire.errors import InternalError, ServiceError
from vision_service.jobs import error_to_plain
from vision_service.videos import messages
from vision_service.videos.clip import FIELD, ClipLimits
from vision_service.videos.messages import Message, Pieces
from vision_service.videos.opening import open_clip
from vision_service.videos.patches import frames_to_patches
from vision_service.videos.stills import still_frames

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OPEN_FILES = 64  # more than Python and its libraries need


class Reader:
    """Does the jobs of one process."""

    def __init__(self, settings: VideoSettings, *, memory_mib: int) -> None:
        self._settings = settings
        self._memory_mib = memory_mib

    def answer(self, message: Message) -> Message:
        """Does one job; errors are answers, too."""
        try:
            return self._done(message)
        except ServiceError as error:
            return Message(error_to_plain(error))
        except MemoryError:
            return Message(error_to_plain(self._too_large()))
        except Exception:  # The process edge: what no job should raise is told, not died of.
            failure = error_to_plain(InternalError("internal error"))
            return Message({**failure, "traceback": traceback.format_exc()})

    def _done(self, message: Message) -> Message:
        job, pieces = message.fields, [bytes(piece) for piece in message.pieces]
        limits = ClipLimits(**job["limits"])
        if job["kind"] == "sample":
            clip = open_clip(pieces[0], limits)
            sampling = FrameSampling(*job["sampling"])
            return Message(clip.timing.sampled(sampling, clip.width, clip.height)._asdict())
        if job["kind"] == "stills":
            frames = still_frames(pieces, limits)
        else:
            clip = open_clip(pieces[0], limits)
            frames = clip.frames(_within(job["indices"], len(clip.timing.starts)))
        patches = frames_to_patches(frames, Grid(*job["grid"]), self._settings)
        return Message({}, [patches.data.cast("B")])

    def _too_large(self) -> ServiceError:
        return video_too_large(
            FIELD, "MiB to decode, or more", self._memory_mib, self._memory_mib, setting="fixed"
        )


def _within(indices: list[int], count: int) -> list[int]:
    if indices[-1] >= count:
        raise InternalError(f"frame {indices[-1]} of {count} was asked for")
    return indices


def main(arguments: list[str]) -> None:
    """Reads jobs until the input ends."""
    bundle, memory_mib = Path(arguments[0]), int(arguments[1])
    _limit(memory_mib)
    reader = Reader(VideoSettings.from_file(bundle / SETTINGS_NAME), memory_mib=memory_mib)
    _silence_ffmpeg()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    while (message := _read(sys.stdin.buffer)) is not None:
        for piece in messages.written(reader.answer(message)):
            answers.write(piece)
        answers.flush()


def _limit(memory_mib: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the service, which ends this
    for what, most in (
        (resource.RLIMIT_AS, memory_mib * MIB),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(what, (most, most))


def _silence_ffmpeg() -> None:
    try:
        from vision_service.videos.containers import silence
    except ImportError:  # without PyAV the other formats are read
        return
    silence()


def _read(stream: BinaryIO) -> Message | None:
    head = stream.read(messages.HEAD_BYTES)
    if len(head) < messages.HEAD_BYTES:
        return None
    fields, sizes = messages.fields_of(stream.read(messages.text_size(head)))
    pieces: Pieces = [stream.read(size) for size in sizes]
    return Message(fields, pieces)


if __name__ == "__main__":
    main(sys.argv[1:])
