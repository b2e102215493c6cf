"""A vision tower in llama.cpp; runs in that peer's environment.

    python -m tests.bench.drivers.tower_llamacpp MODEL.gguf INPUTS THREADS

Its multimodal library takes images beside a language model. What it needs of one is a vocabulary
with the two tokens that stand around an image, so that is all this gives it. Resizing, cutting and
normalizing are not timed.
"""

import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import llama_cpp as api  # type: ignore[import-not-found]
import numpy as np
from llama_cpp import mtmd_cpp as images

from tests.bench.drivers import protocol
from tests.bench.drivers.towers import FloatArray, Given, TowerDriver

CHANNELS, SIDE, MERGE = 3, 16, 2  # of images, patches, and patches of one token
LEVELS, LEVEL_WIDTH = 4, 2048  # embeddings and DeepStack
AROUND = ("<|vision_start|>", "<|vision_end|>")


class LlamaCppTower(TowerDriver):
    """One mmproj file, with the library's defaults."""

    def __init__(self, model: Path, inputs: Path, threads: int) -> None:
        super().__init__(inputs)
        self._form = model.stem
        api.llama_backend_init()
        options = images.mtmd_context_params_default()
        options.use_gpu = options.warmup = options.print_timings = False
        options.n_threads = threads
        self._context = images.mtmd_init_from_file(str(model).encode(), _vocabulary(), options)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not load {model}")

    def describe(self) -> str:
        """Version and the instructions it was built for."""
        info = api.llama_print_system_info().decode().partition("CPU : ")[2]
        used = [part.split(" = ")[0].strip() for part in info.split("|") if " = 1" in part]
        return f"llama-cpp-python {api.__version__}, {self._form}, {' '.join(used)}"

    def prepared(self, given: Given) -> Any:
        """The image as a chunk of a prompt, and its number of tokens."""
        image = _joined(given)
        height, width, _ = image.shape
        pixels = image.ctypes.data_as(ctypes.POINTER(ctypes.c_ubyte))
        bitmap = images.mtmd_bitmap_init(width, height, pixels)
        chunks = images.mtmd_input_chunks_init()
        marker = images.mtmd_default_marker()
        text = images.mtmd_input_text(marker, len(marker), False, True)
        listed = (images.mtmd_bitmap_p_ctypes * 1)(bitmap)
        code = images.mtmd_tokenize(self._context, chunks, ctypes.byref(text), listed, 1)
        if code:
            raise RuntimeError(f"mtmd_tokenize answered {code}")
        for index in range(images.mtmd_input_chunks_size(chunks)):
            chunk = images.mtmd_input_chunks_get(chunks, index)
            if images.mtmd_input_chunk_get_type(chunk) == images.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                return chunk, images.mtmd_input_chunk_get_n_tokens(chunk)
        raise RuntimeError("llama.cpp made no chunk of the image")

    def encode(self, prepared: Any) -> FloatArray:
        """See `TowerDriver.encode`; levels lie side by side in what llama.cpp gives."""
        chunk, rows = prepared
        code = images.mtmd_encode_chunk(self._context, chunk)
        if code:
            raise RuntimeError(f"mtmd_encode_chunk answered {code}")
        found = images.mtmd_get_output_embd(self._context)
        made = np.ctypeslib.as_array(found, (rows * LEVELS * LEVEL_WIDTH,))
        return made.reshape(rows, LEVELS, LEVEL_WIDTH).transpose(1, 0, 2).copy()


def _joined(given: Given) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The image that was cut into patches, uint8 [height, width, 3]."""
    _, h, w = given.grid
    cut = given.pixels.reshape(h // MERGE, w // MERGE, MERGE, MERGE, CHANNELS, -1, SIDE, SIDE)
    image = cut[:, :, :, :, :, 0].transpose(0, 2, 5, 1, 3, 6, 4)
    levels = np.rint((image + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(levels).reshape(h * SIDE, w * SIDE, CHANNELS)


def _vocabulary() -> Any:
    """A model that is a vocabulary of bytes and the tokens around an image."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.gguf"
        tokens = ["<unk>", "<s>", "</s>", *AROUND, *(f"<0x{byte:02X}>" for byte in range(256))]
        kinds = [2, 3, 3, 3, 3, *([6] * 256)]  # unknown, control, bytes
        writer = gguf.GGUFWriter(file, "llama")
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types(kinds)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        options = api.llama_model_default_params()
        options.vocab_only = True
        model = api.llama_model_load_from_file(str(file).encode(), options)
    if not model:
        raise RuntimeError("llama.cpp could not load a vocabulary")
    return model


if __name__ == "__main__":
    model, inputs, threads = sys.argv[1:]
    protocol.serve(lambda: LlamaCppTower(Path(model), Path(inputs), int(threads)))
