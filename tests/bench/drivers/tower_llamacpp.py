"""A vision tower in llama.cpp; runs in that peer's environment.

    python -m tests.bench.drivers.tower_llamacpp MODEL.gguf INPUTS THREADS

Its multimodal library (libmtmd, which llama-cpp-python builds and carries) only takes images beside
a language model, so this calls the encoder within it. That is C++ without a stable interface: the
names below are those of one version, which `environments` pins.
"""

import ctypes
import sys
from pathlib import Path

import llama_cpp as api  # type: ignore[import-not-found]
import numpy as np

from tests.bench.drivers import protocol
from tests.bench.drivers.towers import FloatArray, Given, TowerDriver

CHANNELS, SIDE, MERGE = 3, 16, 2  # of images, patches, and patches of one token


class _Options(ctypes.Structure):
    """clip_context_params."""

    _fields_ = (
        ("use_gpu", ctypes.c_bool),
        ("flash_attention", ctypes.c_int),
        ("least_tokens", ctypes.c_int),
        ("most_tokens", ctypes.c_int),
        ("warms_up", ctypes.c_bool),
        ("on_evaluation", ctypes.c_void_p),
        ("its_data", ctypes.c_void_p),
    )


class _Opened(ctypes.Structure):
    """clip_init_result."""

    _fields_ = (("images", ctypes.c_void_p), ("sounds", ctypes.c_void_p))


class LlamaCppTower(TowerDriver):
    """One mmproj file."""

    def __init__(self, model: Path, inputs: Path, threads: int) -> None:
        super().__init__(inputs)
        self._form, self._threads = model.stem, threads
        self._library = ctypes.CDLL(str(Path(api.__file__).parent / "lib" / "libmtmd.so"))
        opening = self._library["_Z9clip_initPKc19clip_context_params"]
        opening.argtypes, opening.restype = (ctypes.c_char_p, _Options), _Opened
        options = _Options(False, FLASH_ATTENTION, -1, -1, False, None, None)
        self._context = ctypes.c_void_p(opening(str(model).encode(), options).images)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not load {model}")
        self._encode = self._library["_Z23clip_encode_float_imageP8clip_ctxiPfiiS1_"]
        self._encode.restype = ctypes.c_bool
        width = self._library["_Z18clip_n_mmproj_embdPK8clip_ctx"]
        self._width = int(width(self._context))

    def describe(self) -> str:
        """Version and the instructions it was built for."""
        info = api.llama_print_system_info().decode().partition("CPU : ")[2]
        used = [part.split(" = ")[0].strip() for part in info.split("|") if " = 1" in part]
        return f"llama-cpp-python {api.__version__}, {self._form}, {' '.join(used)}"

    def encode(self, given: Given) -> FloatArray:
        """See `TowerDriver.encode`; levels lie side by side in what llama.cpp gives."""
        image = _joined(given)
        rows = len(given.pixels) // MERGE**2
        made = np.empty((rows, self._width), np.float32)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (image, made))
        source, target = pointers
        height, width, _ = image.shape
        if not self._encode(self._context, self._threads, source, height, width, target):
            raise RuntimeError("llama.cpp could not encode the image")
        levels = self._width // LEVEL_WIDTH
        return made.reshape(rows, levels, LEVEL_WIDTH).transpose(1, 0, 2)


def _joined(given: Given) -> FloatArray:
    """The image that was cut into patches, float32 [height, width, 3]."""
    _, h, w = given.grid
    cut = given.pixels.reshape(h // MERGE, w // MERGE, MERGE, MERGE, CHANNELS, -1, SIDE, SIDE)
    image = cut[:, :, :, :, :, 0].transpose(0, 2, 5, 1, 3, 6, 4)
    return np.ascontiguousarray(image).reshape(h * SIDE, w * SIDE, CHANNELS)


FLASH_ATTENTION = 1
LEVEL_WIDTH = 2048

if __name__ == "__main__":
    model, inputs, threads = sys.argv[1:]
    protocol.serve(lambda: LlamaCppTower(Path(model), Path(inputs), int(threads)))
