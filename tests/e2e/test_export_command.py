"""`python -m deploy.export` as a process: what it writes, and what a kill leaves."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deploy.export.checkpoint.checkpoint import Checkpoint
from protos.bundle.manifest import Bundle, BundleError, Manifest, file_sha256
from tests.support.bundles import ROOT, bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.fake_hub import FakeHub

PARTS = ("processor", "vision", "decoder")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy.export", *arguments]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_holds_the_checkpoint_exactly(name: str) -> None:
    source, opened = Checkpoint.open(checkpoint(name)), Bundle.open(bundle(name, "fp32"))
    opened.verify_files(PARTS, advance=lambda size: None)
    assert {path.name for path in opened.path.iterdir()} == {*PARTS, "tandem.json"}
    for file in (opened.path / "processor").iterdir():
        assert file.read_bytes() == (source.path / file.name).read_bytes()
    tower = load_file(opened.path / "vision" / "model.safetensors")
    stored = source.with_prefix("model.visual.")
    assert sorted(tower) == sorted(stored)
    assert all(torch.equal(tensor, stored[key].read()) for key, tensor in tower.items())
    config = json.loads((opened.path / "vision" / "config.json").read_text())
    assert config == source.config["vision_config"]
    table = source.tensors["model.language_model.embed_tokens.weight"]
    assert (opened.path / "decoder" / "embeddings.bin").read_bytes() == b"".join(table.pieces())


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_says_what_the_checkpoint_says(name: str) -> None:
    manifest = Bundle.open(bundle(name, "int4")).manifest
    source = Checkpoint.open(checkpoint(name))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (manifest.text, manifest.vision) == (source.text, source.vision)
    assert manifest.special_tokens == source.special_tokens
    assert manifest.generation["eos_token_id"] == list(source.special_tokens.eos)
    assert (manifest.graph.precision, manifest.graph.block_size) == ("int4", 32)
    assert manifest.graph.accuracy_level == 4
    dtypes = {"tied": "bfloat16", "untied": "float32", "deep": "float16", "odd": "bfloat16"}
    assert manifest.embedding_table.dtype == dtypes[name]


def test_a_killed_export_leaves_no_bundle_and_the_next_one_continues(tmp_path: Path) -> None:
    source, target = checkpoint("deep"), tmp_path / "bundle"
    arguments = [str(source), str(target), "--precision", "fp32", "--model-id", "tiny-deep"]
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    with process.stderr:
        # The decoder's stage, the longest, begins after this line.
        next(line for line in process.stderr if line.startswith("embeddings: done"))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=20) == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(BundleError):
        Bundle.open(target.with_name("bundle.partial"))

    again = run(*arguments)

    assert again.returncode == 0, again.stderr
    for stage in ("processor", "vision", "embeddings"):
        assert f"{stage}: done by an earlier export" in again.stderr
    made, whole = Bundle.open(target), Bundle.open(bundle("deep", "fp32"))
    made.verify_files(PARTS, advance=lambda size: None)
    assert made.manifest == whole.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def heed_ctrl_c() -> None:
    """Tests that run in the background of a shell inherit its deafness to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_ends_in_one_line_and_keeps_what_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    arguments = [str(checkpoint("deep")), str(target), "--precision", "fp32"]
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stderr is not None
    with process.stderr:
        next(line for line in process.stderr if line.startswith("embeddings: done"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
    assert process.wait(timeout=20) == 128 + signal.SIGINT
    assert rest[-1] == "stopped; the same command goes on after the last finished stage"
    assert not [line for line in rest if "Traceback" in line]
    state = json.loads((tmp_path / "bundle.partial" / "export.json").read_text())
    assert set(state["done"]) >= {"processor", "vision", "embeddings"}
    assert not target.exists()


def no_large_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of half a MiB at `folder`; the test is skipped where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def assert_one_line_says(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [done.stderr.splitlines()[-1]]
    assert text in errors[0]
    assert "bundle" in errors[0]
    assert errors[0].endswith("the same command goes on after the last finished stage")


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        done = run(str(checkpoint("deep")), str(disk / "bundle"), "--precision", "fp32")
        assert not (disk / "bundle").exists()
    assert done.returncode == 2  # before anything is written
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "MiB free" in line and "the export needs" in line


def test_a_limit_on_files_is_one_clear_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command(str(checkpoint("deep")), str(tmp_path / "bundle"), "--precision", "fp32"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        preexec_fn=no_large_files,
    )
    assert_one_line_says(done, "File too large")


def test_a_folder_that_may_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = run(str(checkpoint("deep")), str(tmp_path / "file" / "bundle"), "--precision", "fp32")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {tmp_path / 'file' / 'bundle.partial'}: Not a directory"
    ]


def test_an_existing_bundle_is_neither_replaced_nor_touched(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "mine").write_text("kept")
    done = run(str(checkpoint("odd")), str(target))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {target} exists already; choose another name or remove it"
    ]
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_weights_that_lack_a_tensor_stop_the_export_by_its_name(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    for file in checkpoint("untied").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    index = source / "model.safetensors.index.json"
    value = json.loads(index.read_text())
    del value["weight_map"]["model.visual.merger.norm.bias"]
    index.write_text(json.dumps(value))
    done = run(str(source), str(tmp_path / "bundle"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the checkpoint's weights lack model.visual.merger.norm.bias"
    ]
    assert not (tmp_path / "bundle").exists()


def test_a_hub_id_is_downloaded_without_pickles_and_exported(tmp_path: Path) -> None:
    extra = {"pytorch_model.bin": b"\x80\x04", "modeling.py": b"raise SystemExit"}
    with FakeHub("owner/tiny", checkpoint("odd"), extra) as hub:
        done = run(
            "owner/tiny",
            str(tmp_path / "bundle"),
            "--precision",
            "fp32",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "hub"),
            HF_HUB_DISABLE_XET="1",
            HF_HUB_DISABLE_TELEMETRY="1",
        )
        assert done.returncode == 0, done.stderr
        assert not {"pytorch_model.bin", "modeling.py"} & hub.served
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.model_id, manifest.revision) == ("owner/tiny", hub.commit)
    same = bundle("odd", "fp32") / "decoder" / "model.onnx.data"
    assert file_sha256(tmp_path / "bundle" / "decoder" / "model.onnx.data") == file_sha256(same)


def test_an_unreachable_hub_is_one_clear_line(tmp_path: Path) -> None:
    done = run(
        "owner/tiny",
        str(tmp_path / "bundle"),
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "hub"),
        HF_HUB_DISABLE_XET="1",
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the hub cannot be reached")
    assert len(done.stderr.splitlines()) == 1
