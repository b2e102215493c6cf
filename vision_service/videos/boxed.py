"""Videos in the box: what the vision tier asks of its workers, and how they do it.

The tier knows a video by its bytes alone; whatever looks into them runs in here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from kernels import resize
from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from protos.media.limits import video_too_large
from protos.media.videos import (
    SETTINGS_NAME,
    FrameSampling,
    SampledFrames,
    VideoSettings,
)
from protos.wire.errors import InvalidRequest, Reason
from vision_service.box.files import BoxedFiles, FileKind
from vision_service.box.task import Given
from vision_service.jobs import EncodedFrames, Patches, VideoFile
from vision_service.media.images import RgbArray
from vision_service.media.preprocess import patches_shape
from vision_service.videos.clip import FIELD, ClipLimits
from vision_service.videos.opening import open_clip
from vision_service.videos.patches import frames_to_patches
from vision_service.videos.stills import still_frames

# What workers import before they confine themselves; torch resizes where our operators do not run.
MODULES = (
    __name__,
    *(("vision_service.videos.containers",) if find_spec("av") else ()),
    *(() if resize.is_available() else ("torch",)),
)
SAMPLE_TASK = f"{__name__}:sample_task"
PATCHES_TASK = f"{__name__}:patches_task"

_WORKERS = 2  # videos read at once; bounds their memory
# The frames that a decoder keeps for others (16 of 1.5 bytes a pixel), and one as RGB, and turned.
_BYTES_PER_PIXEL = 32
_BYTES_BESIDE = 256 * 1024**2


class BoxedVideos(BoxedFiles):
    """Reads videos; see `jobs.Videos`. `close` it at the end.

    Args:
        bundle: Whose video settings apply.
        limits: What a video may cost.
        max_bytes: Largest file.
        max_patches: Most patches of one call.
        limit_s: Processor seconds that one call may take.
    """

    def __init__(
        self,
        bundle: Bundle,
        limits: ClipLimits,
        *,
        max_bytes: int,
        max_patches: int,
        limit_s: float,
    ) -> None:
        self._settings = VideoSettings.from_file(bundle.path / SETTINGS_NAME)
        self._settings.check_against(bundle.manifest.vision)
        self._limits = limits
        patch_bytes = 4 * patches_shape(Grid(1, 1, 1), self._settings.frames)[1]
        kind = FileKind(
            field=FIELD,
            reason=Reason.INVALID_VIDEO,
            max_bytes=max_bytes,
            too_large=lambda size: video_too_large(
                FIELD, "bytes", size, max_bytes, setting="max_video_mib"
            ),
            workers=_WORKERS,
            memory_bytes=limits.max_pixels * _BYTES_PER_PIXEL
            + max_patches * patch_bytes
            + max_bytes * 2
            + _BYTES_BESIDE,
            modules=MODULES,
            limit_s=limit_s,
        )
        super().__init__(kind)

    async def sample(self, file: bytes, sampling: FrameSampling) -> SampledFrames:
        """Says which frames of a file are seen, and when; see `jobs.Videos`."""
        arguments = {"sampling": list(sampling), "limits": asdict(self._limits)}
        values = (await self.run(SAMPLE_TASK, file, arguments)).values
        return SampledFrames(
            tuple(values["indices"]), tuple(values["seconds"]), values["width"], values["height"]
        )

    async def patches(self, source: VideoFile | EncodedFrames, grid: Grid) -> Patches:
        """Decodes frames, resizes them to the grid and cuts them; see `jobs.Videos`."""
        if isinstance(source, VideoFile):
            data = source.data
            chosen = {"indices": list(source.indices)}
        else:
            data = b"".join(source.images)
            chosen = {"sizes": [len(image) for image in source.images]}
        arguments = {
            **chosen,
            "grid": list(grid),
            "limits": asdict(self._limits),
            "settings": asdict(self._settings),
        }
        (pixels,) = (await self.run(PATCHES_TASK, data, arguments)).arrays
        return Patches(pixels, grid)


def sample_task(given: Given) -> dict[str, Any]:
    """Chooses frames: the fields of `SampledFrames`.

    Raises:
        InvalidRequest: the video is refused.
    """
    clip = open_clip(given.data(), ClipLimits(**given.arguments["limits"]))
    sampling = FrameSampling(*given.arguments["sampling"])
    return clip.timing.sampled(sampling, clip.width, clip.height)._asdict()


def patches_task(given: Given) -> dict[str, Any]:
    """Makes patches of frames: float32 [P, D].

    Raises:
        InvalidRequest: the video is refused.
    """
    arguments = given.arguments
    settings = VideoSettings.from_plain(arguments["settings"])
    grid = Grid(*arguments["grid"])
    made = given.new_array(patches_shape(grid, settings.frames), "float32")
    frames_to_patches(_frames(given), grid, settings, made)
    return {}


def _frames(given: Given) -> Iterable[RgbArray]:
    arguments, data = given.arguments, given.data()
    limits = ClipLimits(**arguments["limits"])
    if "sizes" in arguments:
        return still_frames(list(_cut(data, arguments["sizes"])), limits)
    clip, indices = open_clip(data, limits), arguments["indices"]
    if indices[-1] >= len(clip.timing.starts):
        raise InvalidRequest(
            f"frame_indices holds {indices[-1]}, the video has {len(clip.timing.starts)} frames",
            param="video.frame_indices",
        )
    return clip.frames(indices)


def _cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
