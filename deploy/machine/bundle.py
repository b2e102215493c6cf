"""`tandem doctor BUNDLE`: what would keep this machine from serving it, and the speed to expect."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.machine.estimate import HEIGHT, WIDTH, Speed, rounded, speed
from deploy.machine.finding import Finding
from deploy.machine.forms import chosen_form, chosen_graph
from deploy.machine.needs import MemoryNeed, memory_need
from deploy.machine.rates import Rates
from protos.bundle.manifest import PARTS, Bundle, BundleError, DecoderGraph, Manifest
from protos.machine.limits import Limits

GIB = 1024**3
TORCH = frozenset({"torch", "transformers"})  # what only the torch tower needs
OPERATORS = {
    "amx": "AMX: Tandem's operators, INT8 and bfloat16 on tiles in the tower, AVX-512 in the text",
    "avx512": "AVX-512 VNNI: Tandem's operators",
    "avxvnni": "AVX-VNNI: Tandem's operators, on half as wide registers as AVX-512's",
    "avx2": "AVX2: Tandem's operators without dot products of bytes, the slowest of them",
    "": "Tandem's operators do not run here (they need AVX2 and a built library): ONNX Runtime's"
    " kernels for the text, torch for the tower",
}


def examine_bundle(
    path: Path,
    *,
    limits: Limits,
    instruction_set: str,
    installed: Callable[[str], str | None],
    rates: Callable[[int], Rates | None],
) -> list[Finding]:
    """Everything that depends on the bundle; one finding alone where it cannot be read.

    Args:
        path: Its folder.
        limits: Memory and cores there are.
        instruction_set: A key of `OPERATORS`.
        installed: A distribution's version; None where it is not there.
        rates: Measures so many threads.
    """
    try:
        bundle = Bundle.open(path)
        bundle.verify_files(PARTS)
        tower = json.loads((path / "vision/config.json").read_text())
        return _of_bundle(bundle, tower, limits, instruction_set, installed, rates)
    except BundleError as error:
        return [Finding(name="bundle", found=str(error), ok=False)]
    except (OSError, ValueError, LookupError) as error:
        found = f"its tower's config.json or manifest cannot be used ({type(error).__name__})"
        return [Finding(name="bundle", found=found, ok=False)]


def _of_bundle(
    bundle: Bundle,
    tower: Mapping[str, Any],
    limits: Limits,
    instruction_set: str,
    installed: Callable[[str], str | None],
    rates: Callable[[int], Rates | None],
) -> list[Finding]:
    manifest = bundle.manifest
    operators = instruction_set != ""
    graph = chosen_graph(manifest, operators=operators)
    form = chosen_form(manifest.quality, operators=operators)
    found = [
        _about(manifest, graph),
        Finding(name="operators", found=OPERATORS[instruction_set]),
        _tower(form, installed),
        _memory(memory_need(manifest, graph, tower, form=form), limits, form),
        *_versions(manifest, installed),
    ]
    measured = rates(limits.cores)
    if measured is None:
        return [*found, Finding(name="speed", found="could not be measured")]
    told = speed(manifest, graph, tower, form=form, instruction_set=instruction_set, rates=measured)
    return [*found, _speed(told, measured, limits)]


def spared(form: str) -> frozenset[str]:
    """Libraries of the vision tier that a form of the tower does without."""
    return frozenset() if form == "torch" else TORCH


def _about(manifest: Manifest, graph: DecoderGraph) -> Finding:
    provider = manifest.graph.execution_provider
    block = f", block {graph.block_size}" if graph.block_size else ""
    kernels = "Tandem's graph" if graph.kernels == "tandem" else "ONNX Runtime's graph"
    fits = provider == "cpu"
    found = f"{manifest.model_id}, {graph.precision}{block}, {kernels}"
    if not fits:
        found = f"{manifest.model_id} was exported for {provider}; the decoder runs on cpu"
    return Finding(name="bundle", found=found, ok=fits)


def _tower(form: str, installed: Callable[[str], str | None]) -> Finding:
    if form != "torch":
        return Finding(name="tower", found=f"{form} form; torch is not needed")
    missing = [name for name in sorted(TORCH) if installed(name) is None]
    found = "torch, which is needed" + (f": {missing[0]} is MISSING" if missing else "")
    return Finding(name="tower", found=found, ok=not missing)


def _memory(need: MemoryNeed, limits: Limits, form: str) -> Finding:
    parts = {
        "text": need.weights,
        f"{form} tower": need.tower,
        "an image": need.activations,
        "services": need.services,
        "least KV": need.least_kv,
    }
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    whose = "of its control group" if limits.bounded else "of the machine"
    ok = need.total <= limits.free_bytes
    after = f"KV for {rounded(need.kv_tokens(limits.free_bytes))} tokens" if ok else "too little"
    return Finding(
        name="memory of it",
        found=f"{need.total / GIB:.1f} GiB ({listed}) of {limits.free_bytes / GIB:.1f} GiB free"
        f" {whose}: {after}",
        ok=ok,
    )


def _versions(manifest: Manifest, installed: Callable[[str], str | None]) -> list[Finding]:
    """Libraries that made the bundle and are here in another version; that alone keeps nothing."""
    other = [
        f"{name} {made} (here {here})"
        for name, made in sorted(manifest.versions.items())
        if name == "onnxruntime" and (here := installed(name)) not in (None, made)
    ]
    format_found = f"format {manifest.format_version}"
    found = f"{format_found}, made with {', '.join(other)}" if other else f"{format_found}, ours"
    return [Finding(name="versions", found=found)]


def _speed(told: Speed, rates: Rates, limits: Limits) -> Finding:
    cores = f"{limits.cores} core{'s' if limits.cores > 1 else ''}"
    return Finding(
        name="speed",
        found=f"about {rounded(told.decode_tokens_per_s)} tok/s decode,"
        f" {rounded(told.prompt_tokens_per_s)} prompt tok/s,"
        f" {rounded(told.image_s)} s for a {WIDTH}x{HEIGHT} image; one request alone, nothing else"
        f" running on {cores} ({rates.read_bytes_per_s / 1e9:.0f} GB/s,"
        f" {rates.products_per_s / 1e9:.0f} GMAC/s in float32); may be off by a factor of two",
    )
