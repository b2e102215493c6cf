"""A bundle opens only when its manifest and files are what they claim."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.bundle import manifest
from protos.bundle.manifest import (
    MANIFEST_NAME,
    Bundle,
    BundleError,
    FileEntry,
    Manifest,
    file_sha256,
)
from tests.support.manifests import small_manifest


def make_bundle(root: Path) -> Manifest:
    graph = root / "decoder" / "model.onnx"
    graph.parent.mkdir()
    graph.write_bytes(b"graph")
    made = small_manifest(
        files={"decoder/model.onnx": FileEntry(size=5, sha256=file_sha256(graph))}
    )
    (root / MANIFEST_NAME).write_text(made.to_json())
    return made


def test_a_manifest_survives_its_text(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    bundle = Bundle.open(tmp_path)
    assert bundle.manifest == made
    assert bundle.manifest.deepstack_level_count == 2
    bundle.verify_files(("decoder",), advance=lambda size: None)


def test_equal_manifests_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    first = Bundle.open(tmp_path).digest
    assert Bundle.open(tmp_path).digest == first
    other = dataclasses.replace(made, model_id="other")
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


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    files = {**made.files, "vision/config.json": FileEntry(size=1, sha256="")}
    (tmp_path / MANIFEST_NAME).write_text(dataclasses.replace(made, files=files).to_json())
    (tmp_path / "decoder" / "model.onnx").write_bytes(b"gr")
    with pytest.raises(
        BundleError, match=r"decoder/model\.onnx, vision/config\.json; the first has"
    ):
        Bundle.open(tmp_path).verify_files(("vision", "decoder"))


def test_large_files_are_hashed_only_for_who_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "HASHED_AT_START_BYTES", 4)
    monkeypatch.setattr(manifest, "BLOCK_BYTES", 2)
    make_bundle(tmp_path)
    done: list[int] = []
    Bundle.open(tmp_path).verify_files(("decoder",), advance=done.append)
    assert done == [2, 2, 1]
    (tmp_path / "decoder" / "model.onnx").write_bytes(b"grapH")
    Bundle.open(tmp_path).verify_files(("decoder",))
    with pytest.raises(BundleError, match="digest"):
        Bundle.open(tmp_path).verify_files(("decoder",), advance=done.append)


def test_only_the_asked_parts_are_checked(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "decoder" / "model.onnx").unlink()
    Bundle.open(tmp_path).verify_files(("vision", "processor"))
