"""How the vision process begins, and how it ends when it cannot or must not go on."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.vision_process import ROOT, VisionProcess
from tests.support import bundles
from tests.support.waiting import wait_until


def refused(*flags: str) -> str:
    """Runs the service, which must refuse; returns its one line."""
    done = subprocess.run(
        [sys.executable, "-m", "vision_service", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vision_service: ")
    return lines[0]


def damaged(tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(bundles.bundle("tied"), copy)
    return copy


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    assert "nowhere" in refused("--bundle", str(tmp_path / "nowhere"), "--port=0")


def test_a_missing_setting_is_named() -> None:
    assert "--bundle" in refused("--port=0")


def test_an_unknown_setting_is_named() -> None:
    assert "--replica-count" in refused("--bundle=x", "--replica-count=2")


@pytest.mark.parametrize("file", ["vision/model.safetensors", "processor/preprocessor_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    bundle = damaged(tmp_path)
    (bundle / file).unlink()
    assert file in refused("--bundle", str(bundle), "--port=0")


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    bundle = damaged(tmp_path)
    weights = bytearray((bundle / "vision/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (bundle / "vision/model.safetensors").write_bytes(weights)
    assert "vision/model.safetensors" in refused("--bundle", str(bundle), "--port=0")


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("--bundle", str(bundles.bundle("tied")), f"--port={port}")
    assert str(port) in line


def test_a_killed_service_leaves_no_process_behind(tmp_path: Path) -> None:
    log = tmp_path / "stderr.log"
    with VisionProcess(bundles.bundle("tied"), log, "--threads=1") as service:
        wait_until(service.replicas, what="the replica")
        service.signal(signal.SIGKILL)
        service.process.wait(30)
        wait_until(lambda: not service.left_over(), what="Ray's end", timeout_s=30)
