"""Tiny checkpoints and bundles for tests, made once and kept in .cache/ until their makers change.

Several test processes may ask at once: a lock lets one of them build, the others wait.
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.checkpoint_names import NAMES

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "tandem-tests"
SUPPORT = ROOT / "tests" / "support"
CHECKPOINT_SOURCES = (
    SUPPORT / "checkpoints.py",
    SUPPORT / "tokenizers_tiny.py",
    SUPPORT / "chat_template.jinja",
)
LIBRARIES = ("onnxruntime", "onnxruntime-genai", "tokenizers", "torch", "transformers")
BUILD_TIMEOUT_S = 300


def checkpoint(name: str) -> Path:
    """The folder of a tiny checkpoint, one of `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"no tiny checkpoint {name}; there are {', '.join(NAMES)}")
    folder = CACHE / "checkpoints" / _digest(CHECKPOINT_SOURCES) / name
    _once(folder, lambda: _run("tests.support.checkpoints", str(folder.parent), name))
    return folder


def bundle(
    name: str, precision: str = "fp32", *, accuracy_level: int = 4, provider: str = "cpu"
) -> Path:
    """The bundle of a tiny checkpoint.

    Args:
        name: One of `NAMES`.
        precision: "fp32", "fp16", "int4" or "int8".
        accuracy_level: Arithmetic of quantized products; block size 32.
        provider: "cpu" or "cuda".
    """
    source = checkpoint(name)
    makers = (
        *CHECKPOINT_SOURCES,
        *sorted((ROOT / "decoder_service" / "export").glob("*.py")),
        ROOT / "protos" / "bundle.py",
    )
    level = f"-level{accuracy_level}" if precision.startswith("int") else ""
    folder = CACHE / "bundles" / _digest(makers) / f"{name}-{precision}{level}-{provider}"
    arguments = ["--precision", precision, "--accuracy-level", str(accuracy_level)]
    arguments += ["--execution-provider", provider]
    arguments += ["--model-id", f"tiny-{name}"]
    _once(folder, lambda: _run("decoder_service.export", str(source), str(folder), *arguments))
    return folder


def _once(folder: Path, make: Callable[[], None]) -> None:
    finished = folder.with_name(f"{folder.name}.finished")
    if finished.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make()
            finished.touch()


def _run(module: str, *arguments: str) -> None:
    # A process of its own: the exporter hides torchvision, which the oracle needs.
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed ({done.returncode}):\n{done.stderr}")


@functools.cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for library in LIBRARIES:
        digest.update(f"{library}={importlib.metadata.version(library)}\n".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
