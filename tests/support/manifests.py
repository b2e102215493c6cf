"""A small manifest for tests that load no model; each test changes what it is about."""

import dataclasses
from typing import Any

from protos.bundle.manifest import (
    FORMAT_VERSION,
    DecoderGraph,
    EmbeddingTable,
    Manifest,
    SpecialTokens,
    TextDims,
    VisionDims,
)

_SMALL = Manifest(
    format_version=FORMAT_VERSION,
    family="qwen3_vl",
    model_id="small",
    revision=None,
    text=TextDims(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=64,
        max_position_embeddings=128,
    ),
    vision=VisionDims(
        depth=3,
        hidden_size=16,
        out_hidden_size=32,
        in_channels=3,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        deepstack_visual_indexes=(0, 1),
    ),
    special_tokens=SpecialTokens(
        image=1, video=2, vision_start=3, vision_end=4, eos=(5, 6), pad=None
    ),
    generation={},
    embedding_table=EmbeddingTable(file="decoder/embeddings.bin", dtype="float32"),
    graphs=(
        DecoderGraph(
            file="decoder/model.onnx", precision="fp32", block_size=None, accuracy_level=None
        ),
    ),
    versions={},
    files={},
    quality={},
)


def small_manifest(
    *,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    special_tokens: dict[str, Any] | None = None,
    **fields: Any,
) -> Manifest:
    """The small manifest with other values in its parts or fields."""
    return dataclasses.replace(
        _SMALL,
        text=dataclasses.replace(_SMALL.text, **text or {}),
        vision=dataclasses.replace(_SMALL.vision, **vision or {}),
        special_tokens=dataclasses.replace(_SMALL.special_tokens, **special_tokens or {}),
        **fields,
    )
