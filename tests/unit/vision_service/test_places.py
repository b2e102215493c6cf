"""A host finds the bundle where it says itself, or where the front says."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from protos.bundle.manifest import BundleError
from tests.support.manifests import small_manifest
from vision_service.places import VARIABLE, folders, locate


def bundle(folder: Path, model_id: str) -> str:
    """Writes a bundle without files; returns its digest."""
    folder.mkdir(parents=True)
    text = dataclasses.replace(small_manifest(), model_id=model_id).to_json()
    (folder / "tandem.json").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_host_s_own_folder_replaces_those_that_are_named(tmp_path: Path) -> None:
    digest = bundle(tmp_path / "own", "one")
    named = [str(tmp_path / "named")]
    assert bundle(tmp_path / "named", "one") == digest
    assert locate(digest, named, {VARIABLE: str(tmp_path / "own")}).path == tmp_path / "own"
    assert locate(digest, named, {}).path == tmp_path / "named"


def test_a_folder_may_hold_several_bundles(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "a", "one"), bundle(tmp_path / "b", "two")
    assert first != second
    for digest, name in ((first, "a"), (second, "b")):
        assert locate(digest, [str(tmp_path)], {}).path == tmp_path / name


def test_each_folder_is_looked_at_once(tmp_path: Path) -> None:
    bundle(tmp_path / "a", "one")
    assert folders([str(tmp_path), str(tmp_path / "a")], {}) == [tmp_path / "a"]


def test_what_every_folder_lacks_is_said_in_one_line(tmp_path: Path) -> None:
    other = bundle(tmp_path / "other", "one")
    with pytest.raises(BundleError) as caught:
        locate("5a" * 32, [str(tmp_path / "other"), str(tmp_path / "none")], {})
    line = str(caught.value)
    assert line.startswith("no bundle of digest 5a5a5a5a5a5a: ")
    assert f"other has digest {other[:12]}; " in line
    assert "none: not a folder" in line
    assert "\n" not in line


def test_a_bundle_whose_vision_files_are_damaged_is_not_the_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    bundle(folder, "one")
    content = json.loads((folder / "tandem.json").read_text())
    content["files"]["vision/model.safetensors"] = {"sha256": "0" * 64, "size": 1}
    text = json.dumps(content)
    (folder / "tandem.json").write_text(text)
    with pytest.raises(BundleError, match="vision/model.safetensors is missing"):
        locate(hashlib.sha256(text.encode()).hexdigest(), [str(folder)], {})
