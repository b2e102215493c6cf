"""What `tandem doctor BUNDLE` says of bundles, machines and rates that a test makes up."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.machine.bundle import OPERATORS, examine_bundle
from deploy.machine.estimate import SHARES, image_products, prompt_products, rounded, speed
from deploy.machine.finding import Finding
from deploy.machine.forms import chosen_form, chosen_graph
from deploy.machine.needs import memory_need
from deploy.machine.rates import Rates, here
from protos.bundle.manifest import MANIFEST_NAME, DecoderGraph, FileEntry, Manifest, file_sha256
from protos.machine.limits import Limits
from tests.support.manifests import small_manifest
from vision_service.towers.tower import chosen

GIB = 1024**3
RATES = Rates(read_bytes_per_s=20e9, products_per_s=100e9)
LIMITS = Limits(free_bytes=16 * GIB, bounded=False, cores=2)
# The 2B model: the text's shape, and the tower's config.json.
TOWER = {"patch_size": 16, "depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
WEIGHTS = 1_700_000_000
PORTABLE = DecoderGraph(
    file="decoder/model.onnx",
    precision="int4",
    block_size=128,
    accuracy_level=4,
    weight_bytes=WEIGHTS * 4 // 8 + WEIGHTS // 32,
)
OURS = dataclasses.replace(PORTABLE, kernels="tandem", kv_dtype="float16")
GOOD = {"tower": {"levels": [{"mean": 0.9999, "first_percentile": 0.9995}]}}
BAD = {"tower": {"levels": [{"mean": 0.9999, "first_percentile": 0.99}]}}


def manifest(**fields: Any) -> Manifest:
    text = {
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "max_position_embeddings": 262_144,
    }
    files = {
        "decoder/embeddings.bin": FileEntry(size=622_000_000, sha256=""),
        "vision/model.safetensors": FileEntry(size=800_000_000, sha256=""),
        "vision/tower.fast.onnx.data": FileEntry(size=400_000_000, sha256=""),
        "vision/tower.float.onnx.data": FileEntry(size=1_600_000_000, sha256=""),
    }
    defaults = {"graphs": (PORTABLE, OURS), "files": files, "quality": GOOD}
    return small_manifest(text=text, **{**defaults, **fields})


def bundle(folder: Path, **fields: Any) -> Path:
    """A bundle that opens, with no more than what the doctor reads."""
    data = {"vision/config.json": json.dumps(TOWER), "decoder/embeddings.bin": "x" * 100}
    for name, text in data.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    files = {
        name: FileEntry(size=len(text), sha256=file_sha256(folder / name))
        for name, text in data.items()
    }
    (folder / MANIFEST_NAME).write_text(manifest(files=files, **fields).to_json())
    return folder


def examined(
    folder: Path,
    *,
    limits: Limits = LIMITS,
    instruction_set: str = "avx512",
    installed: Callable[[str], str | None] = lambda name: "1.0",
    rates: Rates | None = RATES,
) -> dict[str, Finding]:
    found = examine_bundle(
        folder,
        limits=limits,
        instruction_set=instruction_set,
        installed=installed,
        rates=lambda cores: rates,
    )
    return {finding.name: finding for finding in found}


def test_a_bundle_that_fits_is_all_right_and_told_about(tmp_path: Path) -> None:
    found = examined(bundle(tmp_path))
    assert all(finding.ok for finding in found.values())
    assert "Tandem's graph" in found["bundle"].found
    assert found["tower"].found == "fast form; torch is not needed"
    assert "tok/s decode" in found["speed"].found


def test_too_little_memory_keeps_it_from_being_served_and_says_whose(tmp_path: Path) -> None:
    small = Limits(free_bytes=GIB, bounded=True, cores=2)
    memory = examined(bundle(tmp_path), limits=small)["memory of it"]
    assert not memory.ok
    assert "of 1.0 GiB free of its control group: too little" in memory.found


def test_without_operators_torch_is_needed(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    there = examined(folder, instruction_set="")
    assert there["tower"].ok and "ONNX Runtime's graph" in there["bundle"].found
    absent = examined(
        folder, instruction_set="", installed=lambda name: None if name == "torch" else "1"
    )
    assert not absent["tower"].ok
    assert "torch is MISSING" in absent["tower"].found


def test_a_bundle_for_another_device_cannot_be_served(tmp_path: Path) -> None:
    other = dataclasses.replace(PORTABLE, execution_provider="cuda")
    assert not examined(bundle(tmp_path, graphs=(other,)))["bundle"].ok


@pytest.mark.parametrize("harm", ["missing", "format", "damaged", "config"])
def test_what_cannot_be_read_is_one_finding(tmp_path: Path, harm: str) -> None:
    folder = bundle(tmp_path / "bundle")
    if harm == "missing":
        folder = tmp_path / "nowhere"
    elif harm == "format":
        raw = json.loads((folder / MANIFEST_NAME).read_text())
        (folder / MANIFEST_NAME).write_text(json.dumps({**raw, "format_version": 1}))
    elif harm == "damaged":
        (folder / "decoder/embeddings.bin").write_text("y")
    else:
        raw = json.loads((folder / MANIFEST_NAME).read_text())
        del raw["files"]["vision/config.json"]
        (folder / MANIFEST_NAME).write_text(json.dumps(raw))
        (folder / "vision/config.json").write_text("{}")
    found = examined(folder)
    assert [(name, finding.ok) for name, finding in found.items()] == [("bundle", False)]


def test_another_version_of_the_runtime_is_told_and_keeps_nothing(tmp_path: Path) -> None:
    versions = examined(bundle(tmp_path, versions={"onnxruntime": "1.31.1"}))["versions"]
    assert versions.ok
    assert "onnxruntime 1.31.1 (here 1.0)" in versions.found


def test_rates_that_cannot_be_measured_keep_nothing(tmp_path: Path) -> None:
    speed_of_none = examined(bundle(tmp_path), rates=None)["speed"]
    assert speed_of_none.ok and speed_of_none.found == "could not be measured"


def test_memory_is_weights_tower_and_kv_and_half_of_the_rest_is_kv() -> None:
    need = memory_need(manifest(), OURS, TOWER, form="fast")
    assert need.weights == OURS.weight_bytes + 622_000_000
    assert need.tower == 400_000_000
    assert need.kv_token == 2 * 28 * 8 * 128 * 2
    assert need.least_kv == 4096 * need.kv_token
    assert need.kv_tokens(16 * GIB) == (16 * GIB - need.weights) // 2 // need.kv_token
    assert need.kv_tokens(need.total) == 4096
    assert need.kv_tokens(0) == 0
    with_torch = memory_need(manifest(), PORTABLE, TOWER, form="torch")
    assert with_torch.weights > need.weights and with_torch.tower == 1_600_000_000


@pytest.mark.parametrize("quality", [{}, GOOD, BAD])
@pytest.mark.parametrize("operators", [True, False])
def test_the_form_is_the_one_the_vision_tier_would_choose(
    monkeypatch: pytest.MonkeyPatch, quality: dict[str, Any], operators: bool
) -> None:
    monkeypatch.setattr("kernels.library.path", lambda: Path() if operators else None)
    theirs = chosen("auto", quality, device="cpu", dtype="float32")
    assert chosen_form(quality, operators=operators) == theirs


def test_the_graph_is_ours_with_small_keys_where_it_runs() -> None:
    assert chosen_graph(manifest(), operators=True) is OURS
    assert chosen_graph(manifest(), operators=False) is PORTABLE
    assert chosen_graph(manifest(graphs=(PORTABLE,)), operators=True) is PORTABLE


def test_a_prompt_token_multiplies_each_weight_but_the_logits() -> None:
    logits = 151_936 * 2048
    assert prompt_products(manifest(), OURS) == pytest.approx(WEIGHTS - logits, rel=1e-6)


def test_an_image_s_products_are_those_of_its_patches() -> None:
    products, attention = image_products(TOWER)
    assert products / 3072 == 24 * 12 * 1024**2  # 302 M, as tests/bench/results/towers.md has it
    assert attention / 3072 == 24 * 2048 * 3072


def told(instruction_set: str, **rates: float) -> Any:
    measured = dataclasses.replace(RATES, **rates)
    return speed(
        manifest(), OURS, TOWER, form="fast", instruction_set=instruction_set, rates=measured
    )


def test_decoding_follows_the_memory_and_the_rest_the_products() -> None:
    slow, fast = told("avx2"), told("avx2", products_per_s=200e9)
    assert slow.decode_tokens_per_s == fast.decode_tokens_per_s
    assert fast.prompt_tokens_per_s == pytest.approx(2 * slow.prompt_tokens_per_s)
    assert slow.image_s > fast.image_s
    assert told("avx2", read_bytes_per_s=40e9).decode_tokens_per_s > slow.decode_tokens_per_s


def test_better_instruction_sets_are_never_slower() -> None:
    ordered = [told(name) for name in ("", "avx2", "avxvnni", "avx512", "amx")]
    prompts = [found.prompt_tokens_per_s for found in ordered]
    images = [found.image_s for found in ordered]
    assert prompts == sorted(prompts)
    assert images == sorted(images, reverse=True)
    assert SHARES.keys() == OPERATORS.keys()


def test_this_machine_has_rates_by_a_clock_of_the_thread() -> None:
    small = 8 * 1024**2
    found = here(1, read_bytes=small)
    assert found.read_bytes_per_s > 1e8 and found.products_per_s > 1e8
    ticks = iter(range(100))
    counted = here(1, read_bytes=small, clock=lambda: float(next(ticks)))
    assert counted.read_bytes_per_s == small
    assert counted.products_per_s == 8 * 256 * 1024**2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (453.0, "500"),
        (47.2, "50"),
        (13.7, "14"),
        (0.83, "0.8"),
        (1420.0, "1,400"),
        (0.0, "0"),
        (0.96, "1"),
    ],
)
def test_figures_are_rounded_to_what_is_known(value: float, text: str) -> None:
    assert rounded(value) == text


def test_doctor_ends_with_1_for_a_bundle_that_cannot_be_served(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.cli", "doctor", str(tmp_path / "nowhere")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "no bundle at" in run.stdout
    assert run.stderr == ""
