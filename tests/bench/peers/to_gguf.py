"""Writes a text checkpoint as Q4_0 GGUF; runs in llama.cpp's own environment.

python -m tests.bench.peers.to_gguf CHECKPOINT FILE
"""

import ctypes
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import llama_cpp  # type: ignore[import-not-found]
import numpy as np

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def main() -> None:
    """Converts to bfloat16 first and lets llama.cpp quantize that."""
    checkpoint, target = Path(sys.argv[1]), Path(sys.argv[2])
    plain = target.with_suffix(".bf16.gguf")
    write_bf16(checkpoint, plain)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = 2
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    failed = llama_cpp.llama_model_quantize(
        str(plain).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    plain.unlink()
    if failed:
        sys.exit(f"llama.cpp could not quantize {plain.name}")


def write_bf16(checkpoint: Path, target: Path) -> None:
    """Writes architecture `qwen3` without a vocabulary: prompts are token ids."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "qwen3")
    _write_shapes(writer, config)
    for name, shape, values in _tensors(checkpoint):
        if len(shape) == 1:
            widened = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            writer.add_tensor(_renamed(name), widened)
        else:
            rows = values.reshape(shape[0], 2 * shape[1])
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(_renamed(name), rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shapes(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def _tensors(checkpoint: Path) -> Iterator[tuple[str, list[int], Any]]:
    """Name, shape and bytes (mapped, not read) of every tensor."""
    for shard in sorted(checkpoint.glob("*.safetensors")):
        mapped = np.memmap(shard, np.uint8, "r")
        (length,) = struct.unpack("<Q", mapped[:8].tobytes())
        header = json.loads(mapped[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            yield name, entry["shape"], mapped[first:last]


def _renamed(name: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{TENSORS[rest.removesuffix('.weight')]}.weight"


if __name__ == "__main__":
    main()
