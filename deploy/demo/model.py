"""The demonstration model's shape: a small, genuine Qwen3-VL."""

from typing import TYPE_CHECKING

import torch

from deploy.demo.oracle import make_transformers_importable

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLVisionModel

HIDDEN = 192
VISION_HIDDEN = 128
VISION_DEPTH = 6
TEXT_DEPTH = 6
DEEPSTACK_LAYERS = (1, 3, 5)


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
        "num_key_value_heads": 2,
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
