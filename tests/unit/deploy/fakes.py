"""A folder that opens as a bundle, and stacks of programs that behave like services."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from deploy.stack.local import StackSettings
from deploy.stack.ports import ANY_FREE, Ports
from protos.bundle.manifest import MANIFEST_NAME, FileEntry, file_sha256
from tests.support.manifests import small_manifest

FAKE_SERVICE = Path(__file__).with_name("fake_service.py")


def empty_bundle(folder: Path) -> Path:
    """A bundle of one small file per tier; no service could load it."""
    names = ("processor/tokenizer.json", "vision/config.json", "decoder/model.onnx")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    files = {name: FileEntry(size=len(name), sha256=file_sha256(folder / name)) for name in names}
    (folder / MANIFEST_NAME).write_text(small_manifest(files=files).to_json())
    return folder


def fake_settings(
    folder: Path,
    *,
    vision: Sequence[str] = ("serve",),
    decoder: Sequence[str] = ("serve",),
    gateway: Sequence[str] = ("serve",),
    ports: Ports = ANY_FREE,
    startup_timeout_s: float = 30.0,
    drain_timeout_s: float = 5.0,
    notice_s: float = 30.0,
) -> StackSettings:
    """A stack of fake services; each is given as its mode and further flags."""
    modes = {"vision": vision, "decoder": decoder, "gateway": gateway}
    return StackSettings(
        bundle=empty_bundle(folder / "bundle"),
        ports=ports,
        log_dir=folder / "logs",
        startup_timeout_s=startup_timeout_s,
        drain_timeout_s=drain_timeout_s,
        notice_s=notice_s,
        programs={
            tier: (sys.executable, str(FAKE_SERVICE), mode[0]) for tier, mode in modes.items()
        },
        flags={tier: mode[1:] for tier, mode in modes.items()},
    )


def fake_services() -> set[int]:
    """Ids of all living fake services below this process, their guards included.

    Other tests of the session may keep real stacks running below the same process.
    """
    found = set()
    for child in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if str(FAKE_SERVICE) in child.cmdline():  # empty for a zombie
                found.add(child.pid)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
