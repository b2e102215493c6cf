"""Qwen3-VL, dense: grouped-query attention with norms of queries and keys, interleaved MRoPE, and a
tower whose DeepStack levels are added to the first decoder layers.

Source: transformers models/qwen3_vl; published config.json files of Qwen/Qwen3-VL-*-Instruct.
"""

import math
from collections.abc import Mapping
from typing import Any

from deploy.export.errors import ExportError
from deploy.export.families.family import Family, PreprocessorFile, TensorNames
from deploy.export.json_keys import expect, positive, require
from protos.bundle.manifest import SpecialTokens, TextDims, VisionDims


def _text_dims(raw: Mapping[str, Any]) -> TextDims:
    """The language model's shapes.

    Raises:
        ExportError: a key is missing or has a value that the graph cannot express.
    """
    text = require(raw, "text_config", "config.json", dict)

    def count(key: str) -> int:
        return positive(text, key, "text_config")

    dims = TextDims(
        hidden_size=count("hidden_size"),
        num_hidden_layers=count("num_hidden_layers"),
        num_attention_heads=count("num_attention_heads"),
        num_key_value_heads=count("num_key_value_heads"),
        head_dim=count("head_dim"),
        vocab_size=count("vocab_size"),
        max_position_embeddings=count("max_position_embeddings"),
    )
    positive(text, "intermediate_size", "text_config")
    require(text, "rms_norm_eps", "text_config", float)
    expect(text, "hidden_act", "silu", "text_config")
    expect(text, "attention_bias", False, "text_config")
    if dims.num_attention_heads % dims.num_key_value_heads:
        raise ExportError(
            f"text_config: {dims.num_attention_heads} attention heads are no multiple of"
            f" {dims.num_key_value_heads} key/value heads"
        )
    if dims.head_dim % 8:
        raise ExportError(
            f"text_config: head_dim is {dims.head_dim}, GroupQueryAttention wants a multiple of 8"
        )
    _check_rope(text, dims.head_dim)
    return dims


def _check_rope(text: Mapping[str, Any], head_dim: int) -> None:
    # Published checkpoints have rope_scaling and rope_theta; transformers 5 writes rope_parameters.
    key = "rope_parameters" if "rope_parameters" in text else "rope_scaling"
    rope = require(text, key, "text_config", dict)
    theta = rope if "rope_theta" in rope else text
    require(theta, "rope_theta", f"text_config.{key}", float)
    expect(rope, "rope_type", "default", f"text_config.{key}")
    expect(rope, "mrope_interleaved", True, f"text_config.{key}")
    section = require(rope, "mrope_section", f"text_config.{key}", list)
    half = head_dim // 2
    fits = len(section) == 3 and sum(section) == half
    # Height takes the frequencies 1, 4, 7, ... and width 2, 5, 8, ... of the half.
    if not fits or 3 * section[1] > half + 1 or 3 * section[2] > half:
        raise ExportError(
            f"mrope_section is {section}, expected three interleavable sizes with sum {half}"
            f" (half of head_dim {head_dim})"
        )


def _vision_dims(raw: Mapping[str, Any]) -> VisionDims:
    """The vision tower's shapes.

    Raises:
        ExportError: a key is missing, or the tower does not fit the language model.
    """
    vision = require(raw, "vision_config", "config.json", dict)
    text = require(raw, "text_config", "config.json", dict)

    def count(key: str) -> int:
        return positive(vision, key, "vision_config")

    levels = require(vision, "deepstack_visual_indexes", "vision_config", list)
    dims = VisionDims(
        depth=count("depth"),
        hidden_size=count("hidden_size"),
        out_hidden_size=count("out_hidden_size"),
        in_channels=count("in_channels"),
        patch_size=count("patch_size"),
        temporal_patch_size=count("temporal_patch_size"),
        spatial_merge_size=count("spatial_merge_size"),
        deepstack_visual_indexes=tuple(levels),
    )
    count("intermediate_size")
    heads, table = count("num_heads"), count("num_position_embeddings")
    require(vision, "hidden_act", "vision_config", str)
    if dims.hidden_size % (4 * heads):
        raise ExportError(
            f"vision_config: hidden_size {dims.hidden_size} is no multiple of 4 x {heads} heads"
        )
    if math.isqrt(table) ** 2 != table:
        raise ExportError(f"vision_config: num_position_embeddings {table} is no square")
    if dims.out_hidden_size != text["hidden_size"]:
        raise ExportError(
            f"vision_config: out_hidden_size is {dims.out_hidden_size}, the language model's"
            f" hidden_size is {text['hidden_size']}"
        )
    _check_levels(dims.deepstack_visual_indexes, dims.depth, text["num_hidden_layers"])
    return dims


def _check_levels(levels: tuple[int, ...], depth: int, layers: int) -> None:
    if list(levels) != sorted(set(levels)) or any(not 0 <= level < depth for level in levels):
        raise ExportError(
            f"deepstack_visual_indexes is {list(levels)}, expected rising blocks below {depth}"
        )
    if len(levels) > layers:
        raise ExportError(f"{len(levels)} DeepStack levels, but only {layers} decoder layers")


def _special_tokens(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> SpecialTokens:
    """The ids config.json and generation_config.json name.

    Raises:
        ExportError: an id is missing.
    """
    eos = generation.get("eos_token_id")
    ids = (eos,) if isinstance(eos, int) else tuple(eos or ())
    if not ids or not all(isinstance(token, int) for token in ids):
        raise ExportError("generation_config.json lacks eos_token_id")
    return SpecialTokens(
        image=require(raw, "image_token_id", "config.json", int),
        video=require(raw, "video_token_id", "config.json", int),
        vision_start=require(raw, "vision_start_token_id", "config.json", int),
        vision_end=require(raw, "vision_end_token_id", "config.json", int),
        eos=ids,
        pad=generation.get("pad_token_id"),
    )


FAMILY = Family(
    name="qwen3_vl",
    published=tuple(
        f"Qwen/Qwen3-VL-{size}-{kind}"
        for size in ("2B", "4B", "8B", "32B")
        for kind in ("Instruct", "Thinking")
    ),
    model_class="Qwen3VLForConditionalGeneration",
    builder_module="onnxruntime_genai.models.builders.qwen",
    builder_class="Qwen3VLTextModel",
    tensors=TensorNames(
        text="model.language_model.",
        vision="model.visual.",
        embeddings="model.language_model.embed_tokens.weight",
        lm_head="lm_head.weight",
    ),
    placeholders={
        "image": "<|image_pad|>",
        "video": "<|video_pad|>",
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
    },
    preprocessors=(
        PreprocessorFile(
            name="preprocessor_config.json",
            nested_key="image_processor",
            is_image=True,
            class_key="image_processor_type",
            classes=(
                "Qwen2VLImageProcessor",
                "Qwen2VLImageProcessorFast",
                "Qwen3VLImageProcessor",
                "Qwen3VLImageProcessorFast",
            ),
        ),
        PreprocessorFile(
            name="video_preprocessor_config.json",
            nested_key="video_processor",
            is_image=False,
            class_key="video_processor_type",
            classes=("Qwen3VLVideoProcessor",),
        ),
    ),
    has_tandem_attention=True,
    text_dims=_text_dims,
    vision_dims=_vision_dims,
    special_tokens=_special_tokens,
)
