"""Who may import what: services import only `protos`, heavy libraries stay in their rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protos", "vision_service", "decoder_service", "gateway", "deploy")

# Our packages each package may import, itself apart.
ALLOWED = {
    "protos": set[str](),
    "vision_service": {"protos"},
    "decoder_service": {"protos"},
    "gateway": {"protos"},
    "deploy": {"protos"},
}

# Libraries and the only modules (path prefixes) that may import them.
FENCES = {
    "torch": ("vision_service/", "decoder_service/export/", "deploy/demo/"),
    "transformers": ("vision_service/", "decoder_service/export/", "deploy/demo/"),
    "ray": ("vision_service/app.py",),
    "onnxruntime": ("decoder_service/sessions.py", "decoder_service/export/"),
    "onnxruntime_genai": ("decoder_service/export/",),
    "onnx": ("decoder_service/export/",),
    "onnx_ir": ("decoder_service/export/",),
    "fastapi": ("gateway/http.py",),
    "uvicorn": ("gateway/listener.py",),
    "tokenizers": (
        "gateway/prompt.py",
        "gateway/detokenize.py",
        "gateway/tokenizer.py",
        "deploy/demo/",
    ),
    "llguidance": ("decoder_service/grammar",),
    "jinja2": ("gateway/prompt.py", "gateway/template.py"),
}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in path.name:
                yield package, path


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for owner, path in modules()
        if owner == package
        for name in imports_of(path)
        if (top := name.partition(".")[0]) in (*PACKAGES, "tests")
        and top != package
        and top not in ALLOWED[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(FENCES))
def test_heavy_libraries_stay_in_their_modules(library: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for _, path in modules()
        for name in imports_of(path)
        if name.partition(".")[0] == library
        and not path.relative_to(ROOT).as_posix().startswith(FENCES[library])
    ]
    assert wrong == []


def test_decoder_service_imports_its_exporter_nowhere() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for package, path in modules()
        if "export" not in path.parts
        for name in imports_of(path)
        if name.startswith("decoder_service.export")
    ]
    assert wrong == []
