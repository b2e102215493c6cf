"""Images and videos as a user names them: by an option, a command, or a path within a line."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from deploy.terminal.image import read_image
from deploy.terminal.screen import CommandError
from protos.media.limits import MAX_VIDEO_BYTES
from protos.tandem.v1 import gateway_pb2
from protos.wire.channels import MIB

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".m4v")

# Words as terminals write a path that is dropped on them: quoted, or its blanks escaped.
_WORD = re.compile(r"""'[^']+'|"[^"]+"|(?:\\.|\S)+""")


def image_part(path: Path) -> gateway_pb2.ContentPart:
    """An image file as a part of a message.

    Raises:
        CommandError: no such file, or not an image.
    """
    return gateway_pb2.ContentPart(image=read_image(path))


def video_part(path: Path) -> gateway_pb2.ContentPart:
    """A video file as a part of a message; only the server looks into it.

    Raises:
        CommandError: no such file, an empty one, or one that no message holds.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_VIDEO_BYTES:
            raise CommandError(
                f"{path} has {size} bytes, expected 1 to {MAX_VIDEO_BYTES // MIB} MiB", exit_code=2
            )
        return gateway_pb2.ContentPart(video=gateway_pb2.Video(file=path.read_bytes()))
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", exit_code=2) from error


def typed_path(text: str) -> Path:
    """A path as a shell would read it: quoted, or with its blanks as they are."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation mark that is part of the name
        words = []
    return Path(words[0] if len(words) == 1 else text).expanduser()


def named_in(line: str) -> tuple[str, list[gateway_pb2.ContentPart]]:
    """What a line asks, and the files it names: words that are paths of images or videos.

    Returns:
        The line without those words, and a part for each of them, in order.

    Raises:
        CommandError: such a file cannot be read.
    """
    parts: list[gateway_pb2.ContentPart] = []

    def taken(word: re.Match[str]) -> str:
        path = typed_path(word[0])
        read = _reader(path)
        if read is None or not path.is_file():
            return word[0]
        parts.append(read(path))
        return ""

    rest = _WORD.sub(taken, line)
    return (" ".join(rest.split()) if parts else line), parts


def _reader(path: Path) -> Callable[[Path], gateway_pb2.ContentPart] | None:
    ending = path.suffix.lower()
    if ending in IMAGE_ENDINGS:
        return image_part
    return video_part if ending in VIDEO_ENDINGS else None
