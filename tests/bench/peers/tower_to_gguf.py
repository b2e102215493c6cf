"""Writes a tower as llama.cpp's multimodal projector (mmproj); runs in that peer's environment.

    python -m tests.bench.peers.tower_to_gguf TOWER FILE.gguf f16|q8_0

As llama.cpp's own converter does it: the products' weights in the type that is wanted, patches'
convolution in float16, norms, biases and the position table in float32.
"""

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
BLOCK = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
}
MERGER = {"norm": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2"}
DEEPSTACK = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}
NORM_EPSILON = 1e-6
PATCHES = "patch_embed.proj.weight"


def main() -> None:
    """Writes the file."""
    tower, target, wanted = Path(sys.argv[1]), Path(sys.argv[2]), TYPES[sys.argv[3]]
    config = json.loads((tower / "vision" / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "clip")
    _write_shapes(writer, config)
    for name, values in _tensors(tower / "vision" / "model.safetensors"):
        for renamed, part in _renamed(name, values, config):
            kind = _kind(name, part, wanted)
            writer.add_tensor(renamed, gguf.quants.quantize(part, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _kind(name: str, values: FloatArray, wanted: Any) -> Any:
    if name == PATCHES:
        return TYPES["f16"]
    is_product = values.ndim == 2 and name != "pos_embed.weight"
    return wanted if is_product else gguf.GGMLQuantizationType.F32


def _write_shapes(writer: Any, config: Mapping[str, Any]) -> None:
    side = round(config["num_position_embeddings"] ** 0.5)
    levels = config["deepstack_visual_indexes"]
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN3VL)
    writer.add_vision_projection_dim(config["out_hidden_size"])
    writer.add_vision_image_size(side * config["patch_size"])
    writer.add_vision_patch_size(config["patch_size"])
    writer.add_vision_embedding_length(config["hidden_size"])
    writer.add_vision_feed_forward_length(config["intermediate_size"])
    writer.add_vision_block_count(config["depth"])
    writer.add_vision_head_count(config["num_heads"])
    writer.add_vision_attention_layernorm_eps(NORM_EPSILON)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)
    writer.add_vision_spatial_merge_size(config["spatial_merge_size"])
    writer.add_vision_is_deepstack_layers([index in levels for index in range(config["depth"])])


def _tensors(file: Path) -> Iterator[tuple[str, FloatArray]]:
    """Every tensor of a file in bfloat16, widened."""
    mapped = np.memmap(file, np.uint8, "r")
    (length,) = struct.unpack("<Q", mapped[:8].tobytes())
    header = json.loads(mapped[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        halves = mapped[first:last].view(np.uint16)
        yield name, (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def _renamed(
    name: str, values: FloatArray, config: Mapping[str, Any]
) -> Iterator[tuple[str, FloatArray]]:
    """A tensor under llama.cpp's name; the patches' convolution is one for each frame."""
    module, _, part = name.rpartition(".")
    if name == PATCHES:
        for frame in range(values.shape[2]):
            suffix = "" if frame == 0 else f".{frame}"
            yield f"v.patch_embd.weight{suffix}", np.ascontiguousarray(values[:, :, frame])
    elif module == "patch_embed.proj":
        yield "v.patch_embd.bias", values
    elif module == "pos_embed":
        yield "v.position_embd.weight", values
    elif module.startswith("blocks."):
        _, block, rest = module.split(".", 2)
        yield f"v.blk.{block}.{BLOCK[rest]}.{part}", values
    elif module.startswith("deepstack_merger_list."):
        _, level, rest = module.split(".")
        block = config["deepstack_visual_indexes"][int(level)]
        yield f"v.deepstack.{block}.{DEEPSTACK[rest]}.{part}", values
    else:
        yield f"{MERGER[module.removeprefix('merger.')]}.{part}", values


if __name__ == "__main__":
    main()
