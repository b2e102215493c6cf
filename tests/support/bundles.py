"""Tiny checkpoints and bundles for tests, made once and kept in .cache/ until their makers change.

Several test processes may ask at once: a lock lets one of them build, the others wait.
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.checkpoint_names import NAMES

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "tandem-tests"
SUPPORT = ROOT / "tests" / "support"
CHECKPOINT_SOURCES = (
    SUPPORT / "checkpoints.py",
    SUPPORT / "tokenizers_tiny.py",
    SUPPORT / "chat_template.jinja",
)
DEMO_CHECKPOINT = ROOT / "deploy" / "demo" / "checkpoint"
DEMO_OPTIONS = {"fp32": ["--precision=fp32"], "int4": list[str]()}
LIBRARIES = ("onnxruntime", "onnxruntime-genai", "tokenizers", "torch", "transformers")
BUILD_TIMEOUT_S = 300


class Variant(NamedTuple):
    """One way to export one tiny checkpoint; block size 32."""

    name: str
    precision: str
    accuracy_level: int

    @property
    def folder(self) -> str:
        level = f"-level{self.accuracy_level}" if self.precision.startswith("int") else ""
        return f"{self.name}-{self.precision}{level}"


# What a whole run of the tests asks for, so exported together.
USUAL = (
    *(Variant(name, "fp32", 4) for name in NAMES),
    *(Variant(name, "int4", level) for name in NAMES for level in (0, 4)),
    *(Variant(name, "int8", level) for name in ("tied", "odd") for level in (0, 4)),
    *(Variant(name, "fp16", 4) for name in ("untied", "deep")),
)


def checkpoint(name: str) -> Path:
    """The folder of a tiny checkpoint, one of `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"no tiny checkpoint {name}; there are {', '.join(NAMES)}")
    folder = CACHE / "checkpoints" / _digest(CHECKPOINT_SOURCES)
    _once(folder, list(NAMES), lambda names: _run("tests.support.checkpoints", str(folder), *names))
    return folder / name


def bundle(name: str, precision: str = "fp32", *, accuracy_level: int = 4) -> Path:
    """The bundle of a tiny checkpoint.

    Args:
        name: One of `NAMES`.
        precision: "fp32", "fp16", "int4" or "int8".
        accuracy_level: Arithmetic of quantized products.
    """
    if not precision.startswith("int"):
        accuracy_level = 4  # means nothing to them; one bundle for all
    wanted = Variant(name, precision, accuracy_level)
    folder = CACHE / "bundles" / _digest((*CHECKPOINT_SOURCES, *_exporter()))
    variants = {variant.folder: variant for variant in {*USUAL, wanted}}

    def export(missing: list[str]) -> None:
        jobs = [_arguments(variants[name], folder / name) for name in missing]
        _run("tests.support.export_all", json.dumps(jobs))

    _once(folder, sorted(variants), export)
    return folder / wanted.folder


def demo_bundle(precision: str) -> Path:
    """The demonstration model's bundle, "fp32" or "int4", the latter as exported by default."""
    files = sorted(path for path in DEMO_CHECKPOINT.iterdir() if path.is_file())
    folder = CACHE / "demo" / _digest((*files, *_exporter()))

    def export(missing: list[str]) -> None:
        jobs = [[str(DEMO_CHECKPOINT), str(folder / name), *DEMO_OPTIONS[name]] for name in missing]
        _run("tests.support.export_all", json.dumps(jobs))

    _once(folder, [*DEMO_OPTIONS], export)
    return folder / precision


def _exporter() -> tuple[Path, ...]:
    """What decides over a bundle's bytes beside its checkpoint."""
    return (
        *sorted((ROOT / "deploy" / "export").rglob("*.py")),
        ROOT / "kernels" / "layout.py",
        ROOT / "protos" / "bundle" / "manifest.py",
    )


def _arguments(variant: Variant, target: Path) -> list[str]:
    return [
        str(checkpoint(variant.name)),
        str(target),
        f"--precision={variant.precision}",
        "--block-size=32",  # the tiny models' rows are shorter than the default
        f"--accuracy-level={variant.accuracy_level}",
        f"--model-id=tiny-{variant.name}",
    ]


def _once(folder: Path, names: list[str], make: Callable[[list[str]], None]) -> None:
    """Makes the folders that are not finished yet, in one process of several."""

    def missing() -> list[str]:
        return [name for name in names if not (folder / f"{name}.finished").exists()]

    if not missing():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = missing()
        for name in wanted:
            shutil.rmtree(folder / name, ignore_errors=True)
        if wanted:
            make(wanted)
        for name in wanted:
            (folder / f"{name}.finished").touch()


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
