"""Random Qwen3-VL checkpoints in Hugging Face's format, for tests and measurements.

The tiny ones differ in everything that may differ between checkpoints. Their weights are large
enough that leaving out DeepStack, or giving every token plain 1-D positions, changes most
argmaxes (tests/parity/test_graph_sensitivity.py holds them to it). `python -m
tests.support.checkpoints FOLDER [NAME ...]` writes them.
"""

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tests.support import tokenizers_tiny, torchvision_schemas
from tests.support.tokenizers_tiny import CONTROL_TOKENS

torchvision_schemas.install()
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration  # noqa: E402

TEMPLATE = Path(__file__).with_name("chat_template.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSpec:
    """Everything that tells one tiny checkpoint from another."""

    name: str
    seed: int
    dtype: str  # of the stored weights
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool
    merges: int  # BPE merges of the tokenizer
    padded_vocab: int | None = None  # vocabulary rows; None for exactly the tokenizer's
    control_order: tuple[str, ...] = CONTROL_TOKENS
    rope_theta: float = 5_000_000.0
    mrope_section: tuple[int, int, int] = (4, 2, 2)
    image_area: tuple[int, int] = (65536, 16777216)  # pixels: least and most
    published_form: bool = True  # config.json with rope_scaling/torch_dtype, as Qwen publishes
    full_preprocessor: bool = False  # states what Qwen's own files leave to class defaults
    shard_size: str = "1GB"
    generation: Mapping[str, Any] = field(default_factory=dict)


SPECS: Mapping[str, CheckpointSpec] = {
    spec.name: spec
    for spec in (
        # Like 2B and 4B in layout: tied, their 24 blocks and three levels, real image limits.
        CheckpointSpec(
            name="tied",
            seed=1,
            dtype="bfloat16",
            tied=True,
            merges=400,
            padded_vocab=768,
            text={
                "hidden_size": 64,
                "intermediate_size": 160,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
            },
            vision={
                "depth": 24,
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_heads": 4,
                "num_position_embeddings": 2304,
                "deepstack_visual_indexes": [5, 11, 17],
            },
            generation={
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 20,
                "repetition_penalty": 1.0,
            },
        ),
        # Attention wider than the hidden size, 8B's 27 blocks, two levels, sharded files.
        CheckpointSpec(
            name="untied",
            seed=2,
            dtype="float32",
            tied=False,
            merges=300,
            text={
                "hidden_size": 96,
                "intermediate_size": 224,
                "num_hidden_layers": 5,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 24,
            },
            vision={
                "depth": 27,
                "hidden_size": 64,
                "intermediate_size": 112,
                "num_heads": 2,
                "num_position_embeddings": 256,
                "deepstack_visual_indexes": [8, 24],
            },
            rope_theta=10_000.0,
            mrope_section=(4, 4, 4),
            image_area=(4096, 65536),
            published_form=False,
            full_preprocessor=True,
            shard_size="400KB",
        ),
        # As many levels as decoder layers, no grouped heads, ids in another order, float16.
        CheckpointSpec(
            name="deep",
            seed=3,
            dtype="float16",
            tied=True,
            merges=200,
            control_order=tuple(reversed(CONTROL_TOKENS)),
            text={
                "hidden_size": 80,
                "intermediate_size": 144,
                "num_hidden_layers": 4,
                "num_attention_heads": 8,
                "num_key_value_heads": 8,
                "head_dim": 32,
            },
            vision={
                "depth": 6,
                "hidden_size": 96,
                "intermediate_size": 80,
                "num_heads": 3,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 2, 3, 4],
            },
            rope_theta=1_000_000.0,
            mrope_section=(6, 5, 5),
            image_area=(4096, 65536),
            generation={"do_sample": False},
        ),
        # Odd sizes, one level, another patch and merge layout, one key/value head.
        CheckpointSpec(
            name="odd",
            seed=4,
            dtype="bfloat16",
            tied=False,
            merges=100,
            padded_vocab=389,
            text={
                "hidden_size": 75,
                "intermediate_size": 131,
                "num_hidden_layers": 3,
                "num_attention_heads": 5,
                "num_key_value_heads": 1,
                "head_dim": 40,
            },
            vision={
                "depth": 3,
                "hidden_size": 36,
                "intermediate_size": 52,
                "num_heads": 3,
                "patch_size": 8,
                "spatial_merge_size": 3,
                "num_position_embeddings": 49,
                "deepstack_visual_indexes": [1],
            },
            rope_theta=50_000.0,
            mrope_section=(8, 6, 6),
            image_area=(2304, 36864),
            full_preprocessor=True,
        ),
    )
}


def build(name: str, folder: Path) -> Path:
    """Writes the tiny checkpoint `name` to `folder` (replaced if it exists); returns `folder`."""
    spec = SPECS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = tokenizers_tiny.train(spec.merges, control_order=spec.control_order)
    config = _config(spec, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = Qwen3VLForConditionalGeneration(config).eval()
        _fill(model)
    model.to(getattr(torch, spec.dtype)).save_pretrained(folder, max_shard_size=spec.shard_size)
    if spec.published_form:
        to_published_form(folder / "config.json")
    write_processor(
        folder,
        tokenizer,
        vision=config.vision_config.to_dict(),
        image_area=spec.image_area,
        full=spec.full_preprocessor,
    )
    write_generation(folder, tokenizer, spec.generation)
    return folder


def _config(spec: CheckpointSpec, tokenizer: Tokenizer) -> Qwen3VLConfig:
    vocab_size = spec.padded_vocab or tokenizer.get_vocab_size()
    rope = {
        "rope_type": "default",
        "rope_theta": spec.rope_theta,
        "mrope_section": list(spec.mrope_section),
        "mrope_interleaved": True,
    }
    text = {
        "vocab_size": vocab_size,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "hidden_act": "silu",
        "tie_word_embeddings": spec.tied,
        "rope_parameters": rope,
        **spec.text,
    }
    vision = {
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "out_hidden_size": text["hidden_size"],
        **spec.vision,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=spec.tied,
        **special_ids(tokenizer),
    )


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids config.json names."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: _id(tokenizer, name) for key, name in names.items()}


def _id(tokenizer: Tokenizer, name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise ValueError(f"the tokenizer lacks {name}")
    return found


# Standard deviation times sqrt(fan_in), by the end of a weight's name; the first match counts.
# Query and key norms above 1 make attention sharp, so that positions matter; the DeepStack
# mergers' outputs are as large as the hidden states they are added to, so that they matter.
GAINS: tuple[tuple[str, float], ...] = (
    ("patch_embed.proj.weight", 3.0),
    ("merger.linear_fc2.weight", 3.0),
    ("linear_fc2.weight", 1.5),
    ("lm_head.weight", 3.0),
    ("o_proj.weight", 4.0),
    ("down_proj.weight", 1.5),
)


def _fill(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                weight.uniform_(2.0, 3.5)
            elif "norm" in name and name.endswith("weight"):
                weight.uniform_(0.7, 1.3)
            elif name.endswith("bias"):
                weight.normal_(std=0.1)
            elif "pos_embed" in name:
                weight.normal_(std=0.7)
            elif "embed_tokens" in name:
                weight.normal_(std=3.0 / math.sqrt(weight.shape[1]))
            elif "deepstack_merger_list" in name and name.endswith("linear_fc2.weight"):
                weight.normal_(std=5.0 / math.sqrt(weight.shape[1]))
            else:
                fan_in = math.prod(weight.shape[1:])
                gain = next((value for end, value in GAINS if name.endswith(end)), 1.2)
                weight.normal_(std=gain / math.sqrt(fan_in))


def to_published_form(file: Path) -> None:
    """Rewrites config.json's keys as the published Qwen3-VL checkpoints spell them."""
    config = json.loads(file.read_text())
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    text["dtype"] = config.pop("dtype")
    text.pop("pad_token_id", None)
    config["text_config"] = text
    config["vision_config"].pop("rope_parameters", None)
    config["vision_config"]["model_type"] = "qwen3_vl"
    config["transformers_version"] = "4.57.0.dev0"
    file.write_text(json.dumps(config, indent=2))


def write_processor(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    vision: Mapping[str, Any],
    image_area: tuple[int, int],
    full: bool,
) -> None:
    """Writes tokenizer, chat template, and image and video settings.

    Args:
        folder: The checkpoint.
        tokenizer: Its tokenizer.
        vision: The vision_config.
        image_area: Least and most pixels of one image.
        full: State too what Qwen's own files leave to the processor's class.
    """
    tokenizers_tiny.save(tokenizer, folder)
    template = TEMPLATE.read_text()
    (folder / "chat_template.jinja").write_text(template)
    common = {
        "patch_size": vision["patch_size"],
        "temporal_patch_size": vision["temporal_patch_size"],
        "merge_size": vision["spatial_merge_size"],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    least, most = image_area
    image = {
        "size": {"longest_edge": most, "shortest_edge": least},
        **common,
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    if full:
        image |= {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "resample": 3,
            "rescale_factor": 1 / 255,
        }
    video = {
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        **common,
        "video_processor_type": "Qwen3VLVideoProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2))


def write_generation(folder: Path, tokenizer: Tokenizer, values: Mapping[str, Any]) -> None:
    """Writes generation_config.json with the tokenizer's ids and `values`."""
    generation = {
        "bos_token_id": _id(tokenizer, "<|endoftext|>"),
        "pad_token_id": _id(tokenizer, "<|endoftext|>"),
        "eos_token_id": [_id(tokenizer, "<|im_end|>"), _id(tokenizer, "<|endoftext|>")],
        **values,
        "transformers_version": "4.57.0",
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))


def main() -> None:
    """Writes the named checkpoints, all of them by default, below a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=sorted(SPECS))
    arguments = parser.parse_args()
    for name in arguments.names:
        build(name, arguments.folder / name)


if __name__ == "__main__":
    main()
