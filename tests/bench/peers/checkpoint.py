"""The text model of a Qwen3-VL checkpoint as a plain `Qwen3ForCausalLM`, for the other engines.

Same shapes, same weights, same tied head; what is lost (MRoPE's three axes, DeepStack) costs
nothing in a text prompt, where the three positions are equal and there is nothing to add.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

PREFIX = "model.language_model."
TAKEN = (
    "attention_bias",
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "vocab_size",
)
MAX_POSITIONS = 40960
EOS_ID = 151645


def write_text_checkpoint(source: Path, target: Path) -> None:
    """Writes the text model of `source` to the folder `target`, shard by shard.

    Raises:
        FileNotFoundError: `source` is not a sharded checkpoint.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    placed: dict[str, str] = {}
    for shard in sorted(set(index["weight_map"].values())):
        names = _copy_shard(source / shard, target / shard)
        placed.update(dict.fromkeys(names, shard))
    total = {"metadata": {"total_size": 0}, "weight_map": placed}
    (target / "model.safetensors.index.json").write_text(json.dumps(total, indent=1))
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(_text_config(config["text_config"]), indent=1))
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS_ID}))
    shutil.copy(source / "tokenizer.json", target)
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1))


def _copy_shard(source: Path, target: Path) -> list[str]:
    with safe_open(source, "pt") as shard:
        names = [name for name in shard.keys() if name.startswith(PREFIX)]
        kept = {
            "model." + name.removeprefix(PREFIX): _distinct(name, shard.get_tensor(name))
            for name in names
        }
    if kept:
        save_file(kept, target, metadata={"format": "pt"})
    return list(kept)


def _distinct(name: str, values: torch.Tensor) -> torch.Tensor:
    """Moves a tensor's values by its layer's number.

    The random full-size checkpoints repeat some tensors from layer to layer, and OpenVINO stores
    equal constants once: no trained model has any.
    """
    layer = re.search(r"\.layers\.(\d+)\.", name)
    return values if layer is None else values.roll(int(layer[1]), dims=-1).contiguous()


def _text_config(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: text[name] for name in TAKEN},
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": text["num_hidden_layers"],
        "sliding_window": None,
        "use_sliding_window": False,
        "bos_token_id": 151643,
        "eos_token_id": EOS_ID,
    }
