"""Which reader a video file gets: its first bytes decide, whatever its sender calls it."""

import re

from protos.media.limits import invalid_video
from protos.media.videos import FORMATS
from protos.wire.errors import InvalidRequest, Reason, Unsupported
from vision_service.videos.animations import AnimationClip
from vision_service.videos.clip import FIELD, Clip, ClipLimits

# First bytes and FFmpeg's demuxer: ISO base media (MP4, QuickTime), and EBML (Matroska, WebM).
_CONTAINERS = ((rb".{4}ftyp", "mp4"), (rb"\x1a\x45\xdf\xa3", "matroska"))
_ANIMATION = rb"GIF8[79]a|RIFF.{4}WEBP"


def open_clip(data: bytes, limits: ClipLimits) -> Clip:
    """Opens a video file.

    Raises:
        InvalidRequest: UNSUPPORTED_MEDIA, none of `FORMATS`; what its reader finds.
        Unsupported: PyAV, which reads MP4, WebM and Matroska, is not installed.
    """
    if not data:
        raise invalid_video(FIELD, "is an empty file")
    if re.match(_ANIMATION, data, re.DOTALL):
        return AnimationClip(data, limits)
    for signature, demuxer in _CONTAINERS:
        if re.match(signature, data, re.DOTALL):
            return _open_container(data, demuxer, limits)
    raise InvalidRequest(
        f"{FIELD} has an unsupported format, expected one of {', '.join(FORMATS)}",
        reason=Reason.UNSUPPORTED_MEDIA,
        param=FIELD,
    )


def _open_container(data: bytes, demuxer: str, limits: ClipLimits) -> Clip:
    try:
        # Imported here so that a server without it still reads the other formats.
        from vision_service.videos.containers import ContainerClip
    except ImportError as error:
        raise Unsupported(
            "this server reads no MP4, WebM and Matroska videos (PyAV is not installed)",
            reason=Reason.VIDEO_NOT_SUPPORTED,
            param=FIELD,
        ) from error
    return ContainerClip(data, demuxer, limits)
