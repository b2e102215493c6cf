"""A bundle opens only when its manifest and files are what they claim."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.bundle import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Bundle,
    BundleError,
    DecoderGraph,
    EmbeddingTable,
    FileEntry,
    Manifest,
    SpecialTokens,
    TextDims,
    VisionDims,
    file_sha256,
)


def make_bundle(root: Path) -> Manifest:
    graph = root / "decoder" / "model.onnx"
    graph.parent.mkdir()
    graph.write_bytes(b"graph")
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        family="qwen3_vl",
        model_id="tiny",
        revision=None,
        text=TextDims(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=300,
            max_position_embeddings=512,
        ),
        vision=VisionDims(
            depth=3,
            hidden_size=32,
            out_hidden_size=64,
            in_channels=3,
            patch_size=16,
            temporal_patch_size=2,
            spatial_merge_size=2,
            deepstack_visual_indexes=(0, 1),
        ),
        special_tokens=SpecialTokens(
            image=290, video=291, vision_start=288, vision_end=289, eos=(2, 1), pad=1
        ),
        generation={"temperature": 0.7},
        embedding_table=EmbeddingTable(file="decoder/embeddings.bin", dtype="bfloat16"),
        graph=DecoderGraph(
            file="decoder/model.onnx", precision="fp32", block_size=None, accuracy_level=None
        ),
        versions={"onnxruntime": "1.31.1"},
        files={"decoder/model.onnx": FileEntry(size=5, sha256=file_sha256(graph))},
        quality={},
    )
    (root / MANIFEST_NAME).write_text(manifest.to_json())
    return manifest


def test_a_manifest_survives_its_text(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path)
    bundle = Bundle.open(tmp_path)
    assert bundle.manifest == manifest
    assert bundle.manifest.deepstack_level_count == 2
    bundle.verify_files(("decoder",), full=True)


def test_equal_manifests_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path)
    first = Bundle.open(tmp_path).digest
    assert Bundle.open(tmp_path).digest == first
    other = dataclasses.replace(manifest, model_id="other")
    (tmp_path / MANIFEST_NAME).write_text(other.to_json())
    assert Bundle.open(tmp_path).digest != first


def edit(key: str, value: object) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        raw = json.loads((root / MANIFEST_NAME).read_text())
        raw[key] = value
        (root / MANIFEST_NAME).write_text(json.dumps(raw))

    return apply


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: (root / MANIFEST_NAME).unlink(), "has no tandem.json"),
        (lambda root: (root / MANIFEST_NAME).write_text("{"), "not valid JSON"),
        (lambda root: (root / MANIFEST_NAME).write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda root: (root / MANIFEST_NAME).write_text("[]"), "format version None"),
        (edit("format_version", 99), "format version 99"),
        (edit("text", {}), "lacks a field"),
        (edit("files", None), "lacks a field"),
        (edit("surprise", 1), "unknown"),
        (lambda root: (root / "decoder" / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda root: (root / "decoder" / "model.onnx").write_bytes(b"gr"), "has 2 bytes"),
        (lambda root: (root / "decoder" / "model.onnx").write_bytes(b"grapH"), "digest"),
    ],
)
def test_damage_is_told_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    make_bundle(tmp_path)
    damage(tmp_path)
    with pytest.raises(BundleError, match=told) as caught:
        Bundle.open(tmp_path).verify_files(("decoder",))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a folder"):
        Bundle.open(tmp_path / "nowhere")


def test_only_the_asked_parts_are_checked(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "decoder" / "model.onnx").unlink()
    Bundle.open(tmp_path).verify_files(("vision", "processor"))
