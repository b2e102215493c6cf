"""Writes checkpoints of the real 2B and 4B shapes with random bfloat16 weights.

`python -m tests.support.full_size 2b FOLDER`. The values mean nothing; sizes, names, special token
ids and files are those of Qwen3-VL. Memory stays below about 2 GB: every shard is filled from one
block of random numbers, written and dropped.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.support import checkpoints, tokenizers_tiny, torchvision_schemas

torchvision_schemas.install()
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration  # noqa: E402

SHARD_BYTES = 1024 * 1024 * 1024
# Random numbers, repeated through all weights; a prime, so that no two rows of a matrix are alike.
BLOCK = 16_777_259
STD = 0.02

TOWER: Mapping[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
    "hidden_act": "gelu_pytorch_tanh",
}
TEXT: Mapping[str, Any] = {
    "vocab_size": 151936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
SIZES: Mapping[str, Mapping[str, int]] = {
    "2b": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    "4b": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
}


def build(size: str, folder: Path) -> Path:
    """Writes the checkpoint `size`, "2b" or "4b", to `folder` (replaced if it exists)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = tokenizers_tiny.with_qwen_ids()
    text = {**TEXT, **SIZES[size]}
    config = Qwen3VLConfig(
        text_config=text,
        vision_config={**TOWER, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=True,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="bfloat16",
        **checkpoints.special_ids(tokenizer),
    )
    config.save_pretrained(folder)
    checkpoints.to_published_form(folder / "config.json")
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    del shapes["lm_head.weight"]  # tied
    _write_weights(shapes, folder)
    checkpoints.write_processor(
        folder, tokenizer, vision=TOWER, image_area=(65536, 16777216), full=False
    )
    checkpoints.write_generation(
        folder,
        tokenizer,
        {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
    )
    return folder


def _write_weights(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    block = (torch.randn(BLOCK, generator=generator) * STD).to(torch.bfloat16)
    shards = list(_shards(shapes))
    placed: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(
            {name: _values(name, shapes[name], block) for name in names},
            folder / file,
            metadata={"format": "pt"},
        )
        placed.update(dict.fromkeys(names, file))
    total = sum(2 * torch.Size(shape).numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _shards(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names: list[str] = []
    used = 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if names and used + size > SHARD_BYTES:
            yield names
            names, used = [], 0
        names.append(name)
        used += size
    yield names


def _values(name: str, shape: tuple[int, ...], block: torch.Tensor) -> torch.Tensor:
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    count = torch.Size(shape).numel()
    # Another start for every tensor, so that no two layers are alike.
    start = sum(name.encode()) * 7919 % BLOCK
    repeats = -(-(count + start) // BLOCK)
    return block.repeat(repeats)[start : start + count].reshape(shape).contiguous()


def main() -> None:
    """Writes one full-size checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    build(arguments.size, arguments.folder)


if __name__ == "__main__":
    main()
