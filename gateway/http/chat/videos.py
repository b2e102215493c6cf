"""Video parts of a message, in the forms that clients of open servers send.

- `{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,..."}}` (vLLM, SGLang), the URL
  also bare, or one to be fetched, or vLLM's frames as `data:video/jpeg;base64,A,B,C`;
- `{"type": "video", "video": "data:..."}`, or a list of images' data: URLs, the frames (Qwen).

Beside either, and within `video_url`, the numbers of Qwen's clients: see `_NUMBERS`.
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from gateway.media.images import image_bytes
from gateway.media.sources import is_followed
from gateway.media.videos import VideoSizing, video_data
from gateway.request.conversation import VideoPart
from protos.wire.errors import InvalidRequest

TYPES = ("video_url", "video")

# Clients' names of what `VideoSizing` holds; `sample_fps` is the rate of frames, where a list's
# sender keeps `fps` for the video they were cut out of.
_NUMBERS = {
    "fps": "fps",
    "sample_fps": "fps",
    "min_frames": "min_frames",
    "max_frames": "max_frames",
    "nframes": "frame_count",
    "num_frames": "frame_count",
    "min_pixels": "min_pixels",
    "max_pixels": "max_pixels",
    "total_pixels": "total_pixels",
}
# Said by the file itself, or of no effect on what is seen.
_IDLE_OF_URL = frozenset(("format", "detail"))


def video_part(raw: Mapping[str, Any], path: str, *, idle: Set[str]) -> VideoPart:
    """A video part.

    Args:
        raw: The part; its type is one of `TYPES`.
        path: Its place in the request, for errors.
        idle: Fields of any part that say nothing here.

    Raises:
        InvalidRequest: a field at fault, named.
    """
    kind = raw["type"]
    given = {name: value for name, value in raw.items() if value is not None and name not in idle}
    given.pop("type")
    content = given.pop(kind, None)
    if isinstance(content, Mapping):
        inner = {name: value for name, value in content.items() if value is not None}
        content = inner.pop("url", None)
        given = _merged(given, inner, path, kind)
    seconds = _seconds(given.pop("timestamps", ()), f"{path}.timestamps")
    sizing = _sizing(given, path)
    sizing.check(field=path)
    file, url = b"", None
    frames: tuple[bytes, ...] = ()
    if isinstance(content, str) and is_followed(content):
        url = content
    elif isinstance(content, str):
        file, frames = video_data(content, field=path)
    elif isinstance(content, Sequence) and kind == "video":
        frames = tuple(_frame(frame, path) for frame in content)
    else:
        raise InvalidRequest(
            f'{path}.{kind} must be a URL as in "data:video/mp4;base64,..."'
            + (", or a list of images' URLs" if kind == "video" else ""),
            param=path,
        )
    if seconds and not frames:
        raise InvalidRequest(
            f"{path}.timestamps are of frames that are sent as images; a file tells its own",
            param=f"{path}.timestamps",
        )
    return VideoPart(file=file, url=url, frames=frames, seconds=seconds, sizing=sizing)


def _merged(
    outer: Mapping[str, Any], inner: Mapping[str, Any], path: str, kind: str
) -> dict[str, Any]:
    """Numbers from both places where clients put them."""
    for name, value in inner.items():
        if name not in _NUMBERS and name not in _IDLE_OF_URL:
            raise _unknown(f"{path}.{kind}.{name[:64]}")
        if outer.get(name, value) != value:
            raise InvalidRequest(
                f"{path}.{name} and {path}.{kind}.{name} differ", param=f"{path}.{name}"
            )
    return {**outer, **{name: inner[name] for name in inner if name in _NUMBERS}}


def _sizing(given: Mapping[str, Any], path: str) -> VideoSizing:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _NUMBERS:
            raise _unknown(f"{path}.{name[:64]}")
        field = _NUMBERS[name]
        kinds = int | float if field == "fps" else int
        if not isinstance(value, kinds) or isinstance(value, bool):
            kind = "a number" if field == "fps" else "an integer"
            raise InvalidRequest(f"{path}.{name} must be {kind}", param=f"{path}.{name}")
        if values.setdefault(field, value) != value:
            raise InvalidRequest(
                f"{path}.{name} has another name here, under which it differs",
                param=f"{path}.{name}",
            )
    return VideoSizing(**values)


def _seconds(value: object, field: str) -> tuple[float, ...]:
    if isinstance(value, list | tuple) and all(type(second) in (int, float) for second in value):
        with suppress(OverflowError):  # a whole number beyond all floats
            return tuple(float(second) for second in value)
    raise InvalidRequest(f"{field} must be a list of seconds", param=field)


def _frame(url: object, path: str) -> bytes:
    """One frame: a URL, or Qwen's object of one."""
    if isinstance(url, Mapping):
        url = url.get("url", url.get("image"))
    if not isinstance(url, str):
        raise InvalidRequest(f"{path}.video must be a list of images' data: URLs", param=path)
    return image_bytes(url, field=path)


def _unknown(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not known here", param=field)
