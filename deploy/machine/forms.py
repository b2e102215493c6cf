"""What a bundle's services would run here: which graph, which form of the tower."""

from collections.abc import Mapping
from typing import Any

from kernels import library
from protos.bundle.manifest import DecoderGraph, Manifest

# Bars of the INT8 tower's likeness to float32; the vision tier's own, which a test compares.
LEAST_MEAN = 0.9995
LEAST_FIRST_PERCENTILE = 0.999

# Files of the tower that a form reads, in the order of what they weigh.
TOWER_FILES = {
    "fast": ("vision/tower.fast.onnx.data",),
    "exact": ("vision/tower.float.onnx.data",),
    "torch": ("vision/model.safetensors",),
}


def instruction_set() -> str:
    """What Tandem's operators use here: "amx", "avx512", "avxvnni", "avx2"; "": they cannot run."""
    found = library.instruction_set()
    return "amx" if found == "avx512" and library.has_tiles() else found


def chosen_form(quality: Mapping[str, Any], *, operators: bool) -> str:
    """The form of the tower that `--tower auto` comes to on a CPU.

    Args:
        quality: The manifest's entry of that name.
        operators: Whether Tandem's operators run.
    """
    if not operators:
        return "torch"
    tower = quality.get("tower")
    keeps_bars = tower is not None and all(
        level["mean"] >= LEAST_MEAN and level["first_percentile"] >= LEAST_FIRST_PERCENTILE
        for level in tower["levels"]
    )
    return "fast" if keeps_bars else "exact"


def chosen_graph(manifest: Manifest, *, operators: bool) -> DecoderGraph:
    """The graph that a decoder's `--kernels auto` and `--kv-dtype auto` come to."""
    if operators:
        for dtype in ("float16", "float32"):
            for graph in manifest.graphs:
                if (graph.kernels, graph.kv_dtype) == ("tandem", dtype):
                    return graph
    return manifest.graph
