"""Writes a vision tower of the real 2B and 4B shape with random weights, all its graphs beside it.

`python -m tests.support.full_size_tower FOLDER`. Weights are as large as their fan-in lets rows
keep their size, so that every block changes what it is given.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from deploy.export.checkpoint.weights import read_index
from deploy.export.vision import writer
from tests.support.full_size import TOWER

OUT_HIDDEN = 2048
CONFIG = {**TOWER, "out_hidden_size": OUT_HIDDEN}


def build(bundle: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    """Writes `vision/` of a tower into a folder; returns the folder."""
    folder = bundle / "vision"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = {name: _values(name, shape) for name, shape in _shapes(config)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    writer.write(read_index(folder), config, folder, lambda _: None)
    return bundle


def _values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if "norm" in name and name.endswith("weight"):
        return torch.empty(shape).uniform_(0.7, 1.3).to(torch.bfloat16)
    if name.endswith("bias"):
        return torch.empty(shape).normal_(std=0.05).to(torch.bfloat16)
    if name == "pos_embed.weight":
        return torch.empty(shape).normal_(std=0.5).to(torch.bfloat16)
    std = 1.2 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).normal_(std=std).to(torch.bfloat16)


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, wide = config["hidden_size"], config["intermediate_size"]
    patch = (
        config["in_channels"],
        config["temporal_patch_size"],
        config["patch_size"],
        config["patch_size"],
    )
    yield from _pair("patch_embed.proj", width, *patch)
    yield "pos_embed.weight", (config["num_position_embeddings"], width)
    for index in range(config["depth"]):
        block = f"blocks.{index}"
        yield from (*_pair(f"{block}.norm1", width), *_pair(f"{block}.norm2", width))
        yield from _pair(f"{block}.attn.qkv", 3 * width, width)
        yield from _pair(f"{block}.attn.proj", width, width)
        yield from _pair(f"{block}.mlp.linear_fc1", wide, width)
        yield from _pair(f"{block}.mlp.linear_fc2", width, wide)
    merged = width * config["spatial_merge_size"] ** 2
    levels = range(len(config["deepstack_visual_indexes"]))
    for name, normed in (
        ("merger", width),
        *((f"deepstack_merger_list.{level}", merged) for level in levels),
    ):
        yield from _pair(f"{name}.norm", normed)
        yield from _pair(f"{name}.linear_fc1", merged, merged)
        yield from _pair(f"{name}.linear_fc2", config["out_hidden_size"], merged)


def _pair(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


if __name__ == "__main__":
    build(Path(sys.argv[1]))
