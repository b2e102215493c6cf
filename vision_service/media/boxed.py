"""Images in the box: what a replica asks of its workers, and how they do it.

A replica knows an image by its bytes alone; whatever looks into them runs in here.
"""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from kernels import resize
from protos.media.formats import ImageHeader
from protos.media.images import Grid, ImageSettings, PixelRange, grid_thw
from protos.media.limits import image_too_large
from protos.wire.errors import InvalidRequest, Reason
from vision_service.box.box import ParserBox
from vision_service.box.task import Given
from vision_service.media.images import FIELD, ImageLimits, checked_header, decode_rgb
from vision_service.media.preprocess import patches_shape, to_patches

# What workers import before they confine themselves; torch resizes where our operators do not run.
MODULES = (__name__, *(() if resize.is_available() else ("torch",)))
GRID_TASK = f"{__name__}:grid_task"
PATCHES_TASK = f"{__name__}:patches_task"

# Processor seconds: an image of the most pixels takes three to five.
LIMIT_S = 30.0

_WORKERS = 2  # images decoded at once; bounds their memory (a 65 M pixel RGBA one: 0.8 GB)
_BYTES_PER_PIXEL = 20  # an RGBA image turned upright, on white, and as RGB: measured 16
_BYTES_BESIDE = 128 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """How images are read.

    Attributes:
        settings: The checkpoint's, with the areas that apply.
        limits: What a file may be.
        max_patches: Most patches of one image.
        expected_grid: The grid its sender expects of it; None: none in particular.
    """

    settings: ImageSettings
    limits: ImageLimits
    max_patches: int
    expected_grid: Grid | None = None

    def of(self, *, areas: PixelRange | None, expected_grid: Grid | None) -> Self:
        """The plan of one image."""
        settings = self.settings if areas is None else self.settings.within(areas)
        return replace(self, settings=settings, expected_grid=expected_grid)

    def memory_bytes(self) -> int:
        """What reading any image may take, beside what libraries do."""
        patch_bytes = 4 * patches_shape(Grid(1, 1, 1), self.settings)[1]
        return (
            self.limits.max_pixels * _BYTES_PER_PIXEL
            + self.max_patches * patch_bytes * 2  # a channel of them, and all
            + self.limits.max_bytes * 2  # the file, and a copy without what is not needed
            + _BYTES_BESIDE
        )

    def to_plain(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Undoes `to_plain`, tuples apart."""
        expected = plain["expected_grid"]
        return cls(
            settings=ImageSettings(**plain["settings"]),
            limits=ImageLimits(**plain["limits"]),
            max_patches=plain["max_patches"],
            expected_grid=None if expected is None else Grid(*expected),
        )


def new_box(plan: ImagePlan) -> ParserBox:
    """The workers that read a replica's images."""
    return ParserBox(workers=_WORKERS, memory_bytes=plan.memory_bytes(), modules=MODULES)


def grid_task(given: Given) -> dict[str, Any]:
    """Says an image's grid by its header, without decoding it: {"grid": [t, h, w]}.

    Raises:
        InvalidRequest: the image is refused.
    """
    _, grid = _inspect(given.data(), ImagePlan.from_plain(dict(given.arguments)))
    return {"grid": grid}


def patches_task(given: Given) -> dict[str, Any]:
    """Makes an image's patches: {"grid": [t, h, w], "preprocess_ms": ...} and float32 [P, D].

    Raises:
        InvalidRequest: the image is refused.
    """
    started_s = time.perf_counter()
    data, plan = given.data(), ImagePlan.from_plain(dict(given.arguments))
    header, grid = _inspect(data, plan)
    pixels = decode_rgb(data, header)
    made = given.new_array(patches_shape(grid, plan.settings), "float32")
    to_patches(pixels, grid, plan.settings, made)
    return {"grid": grid, "preprocess_ms": (time.perf_counter() - started_s) * 1e3}


def _inspect(data: bytes, plan: ImagePlan) -> tuple[ImageHeader, Grid]:
    """What the header says, and the grid that follows from it; refuses what it can."""
    header = checked_header(data, plan.limits)
    grid = grid_thw(header.height, header.width, plan.settings, field=FIELD)
    if grid.patches > plan.max_patches:
        raise image_too_large(FIELD, "patches", grid.patches, plan.max_patches)
    if plan.expected_grid is not None and grid != plan.expected_grid:
        raise InvalidRequest(
            f"expected_grid_thw is {plan.expected_grid}, the image has {grid} patches",
            reason=Reason.SHAPE_MISMATCH,
            param="expected_grid_thw",
        )
    return header, grid
