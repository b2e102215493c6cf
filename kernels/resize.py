"""Antialiased bicubic resizing of RGB images, byte for byte as torch does it."""

import ctypes
import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels import library

RgbArray = npt.NDArray[np.uint8]

_SHARPNESS = -0.5  # of the cubic, as Pillow and torch have it where they antialias
_REACH = 2  # pixels a cubic looks to either side, before scaling


@dataclass(frozen=True, slots=True)
class _Axis:
    """Which pixels of one axis make each pixel of the resized one."""

    starts: npt.NDArray[np.int32]  # [out]
    sizes: npt.NDArray[np.int32]  # [out]
    weights: npt.NDArray[np.int16]  # [out, taps]
    precision: int  # fraction bits of the weights


def is_available() -> bool:
    """Whether the compiled code is there and runs on this machine."""
    return library.path() is not None


def bicubic(pixels: RgbArray, height: int, width: int) -> RgbArray:
    """Resizes one image.

    Args:
        pixels: uint8 [H, W, 3]; `is_available` must be true.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8 [height, width, 3].

    Source: torch.nn.functional.interpolate(uint8, mode="bicubic", antialias=True,
    align_corners=False); equal to the byte in tests/unit/kernels/test_resize.py.
    """
    made = np.ascontiguousarray(pixels)
    if width != made.shape[1]:
        made = _resize_x(made, width)
    if height != made.shape[0]:
        made = _resize_y(made, height)
    return made


def _resize_x(pixels: RgbArray, width: int) -> RgbArray:
    rows, in_width, _ = pixels.shape
    made = np.empty((rows, width, 3), np.uint8)
    axis = _axis(in_width, width)
    _functions().tandem_resize_x(
        *(pixels.ctypes.data, made.ctypes.data, rows, in_width, width),
        *_pointers(axis),
    )
    return made


def _resize_y(pixels: RgbArray, height: int) -> RgbArray:
    in_height, width, _ = pixels.shape
    made = np.empty((height, width, 3), np.uint8)
    sums = np.empty(width * 3, np.int32)
    _functions().tandem_resize_y(
        *(pixels.ctypes.data, made.ctypes.data, 0, height, width),
        *_pointers(_axis(in_height, height)),
        sums.ctypes.data,
    )
    return made


def _pointers(axis: _Axis) -> tuple[int, ...]:
    arrays = (axis.starts, axis.sizes, axis.weights)
    return (*(array.ctypes.data for array in arrays), axis.weights.shape[1], axis.precision)


@functools.lru_cache(maxsize=64)  # sizes repeat: many images of one camera, both axes of each
def _axis(size: int, out: int) -> _Axis:
    """Weights as torch makes them, HelperInterpBase._compute_index_ranges_int16_weights."""
    scale = size / out
    support = _REACH * max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    centers = scale * (np.arange(out) + 0.5)
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), size)
    places = np.arange(taps)[None, :] + starts[:, None] - centers[:, None] + 0.5
    weights = _cubic(places * (1.0 / scale if scale >= 1.0 else 1.0))
    weights[np.arange(taps)[None, :] >= (ends - starts)[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    precision = _precision(float(weights.max()))
    scaled = weights * (1 << precision)
    return _Axis(
        starts=starts.astype(np.int32),
        sizes=(ends - starts).astype(np.int32),
        weights=np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int16),
        precision=precision,
    )


def _precision(largest: float) -> int:
    """The most fraction bits with which the largest weight fits into 15 bits."""
    precision = 0
    while precision < 22 and int(0.5 + largest * (1 << (precision + 1))) < 1 << 15:
        precision += 1
    return precision


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution (1981) with a = -0.5."""
    a, x = _SHARPNESS, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


@functools.cache
def _functions() -> ctypes.CDLL:
    path = library.path()
    assert path is not None, "is_available is false"
    loaded = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    weights = (pointer, pointer, pointer, ctypes.c_int32, ctypes.c_int32)
    loaded.tandem_resize_x.argtypes = (pointer, pointer, number, number, number, *weights)
    loaded.tandem_resize_y.argtypes = (pointer, pointer, number, number, number, *weights, pointer)
    loaded.tandem_resize_x.restype = loaded.tandem_resize_y.restype = None
    return loaded
