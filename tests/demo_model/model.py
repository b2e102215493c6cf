"""The demonstration model's shape: a small, genuine Qwen3-VL."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tests.demo_model.oracle import make_transformers_importable

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLVisionModel

HIDDEN = 192
VISION_HIDDEN = 128
VISION_DEPTH = 6
TEXT_DEPTH = 6
DEEPSTACK_LAYERS = (3, 4, 5)
COPIED = 0.5  # loudness of what attention copies at the start


def vision_config() -> dict[str, object]:
    """The tower: 16-pixel patches, merged two by two, three DeepStack levels."""
    return {
        "depth": VISION_DEPTH,
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 4 * VISION_HIDDEN,
        "num_heads": 4,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": list(DEEPSTACK_LAYERS),
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
    }


def text_config(vocabulary_size: int) -> dict[str, object]:
    """The language model: grouped-query attention, QK norm, interleaved MRoPE."""
    return {
        "vocab_size": vocabulary_size,
        "hidden_size": HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": TEXT_DEPTH,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "initializer_range": 0.02,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
    }


def new_tower(seed: int) -> "Qwen3VLVisionModel":
    """A randomly initialised tower."""
    make_transformers_importable()
    from transformers import Qwen3VLVisionModel
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

    torch.manual_seed(seed)
    return Qwen3VLVisionModel(Qwen3VLVisionConfig(**vision_config()))


def new_model(
    vocabulary_size: int, special: dict[str, int], seed: int
) -> "Qwen3VLForConditionalGeneration":
    """A randomly initialised model; `special` names its token ids."""
    make_transformers_importable()
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    config = Qwen3VLConfig(
        vision_config=vision_config(),
        text_config=text_config(vocabulary_size),
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen3VLForConditionalGeneration(config)


def align_embeddings(
    model: "Qwen3VLForConditionalGeneration", rows: Mapping[int, torch.Tensor]
) -> None:
    """Starts the embeddings of some tokens on the codes of what they name."""
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, code in rows.items():
            weight[token] = code


def prepare_attention(model: "Qwen3VLForConditionalGeneration") -> None:
    """Starts attention on what it is needed for: looking at like tokens and copying them.

    Queries begin as the keys of their group, so a token looks first at tokens with the same
    content, and what is fetched is put back in the directions that it came from.
    """
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            share = attention.num_key_value_groups
            heads = attention.k_proj.weight.unflatten(0, (-1, attention.head_dim))
            attention.q_proj.weight.copy_(heads.repeat_interleave(share, 0).flatten(0, 1))
            heads = attention.v_proj.weight.unflatten(0, (-1, attention.head_dim))
            copied = heads.repeat_interleave(share, 0).flatten(0, 1).T
            attention.o_proj.weight.copy_(COPIED * copied)
