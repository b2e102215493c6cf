"""Weights in the layout of this machine's kernels, found beside the portable ones.

ONNX Runtime rearranges weights when it loads them, into memory of the process's own. A prepacked
copy of a graph holds the rearranged weights too; they are mapped from the file, so that every
decoder on a host shares one copy and none takes memory for them. The layout depends on the
processor and on ONNX Runtime: a copy is made for one signature and used where it is the same.

    decoder/prepacked-<signature>/  index.json, and a graph with its data per prepacked graph

It is no part of the manifest: it says nothing that the portable files do not, and a bundle's digest
must not depend on the machines that serve it.
"""

import hashlib
import importlib.metadata
import json
import logging
import platform
from pathlib import Path
from typing import Any

from protos.bundle import Bundle, DecoderGraph, file_sha256

logger = logging.getLogger(__name__)

INDEX_NAME = "index.json"


def signature(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Names what the layout depends on: architecture, processor features, ONNX Runtime."""
    features = " ".join(sorted(processor_features(cpuinfo))) or platform.processor()
    version = importlib.metadata.version("onnxruntime")
    text = f"{platform.machine()}\n{features}\n{version}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def processor_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the system says that the processor can do; empty where it does not say."""
    if not cpuinfo.is_file():
        return set()
    lines = cpuinfo.read_text().splitlines()
    found = (line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features")))
    return set(next(found, "").split())


def folder_of(root: Path) -> Path:
    """Where a bundle's prepacked graphs for this machine lie."""
    return root / "decoder" / f"prepacked-{signature()}"


def source_of(bundle: Bundle, graph: DecoderGraph) -> dict[str, str]:
    """Digests of every weight and graph file of the decoder, as the manifest has them.

    A copy made from other files than the bundle's is of no use.
    """
    return {
        name: entry.sha256
        for name, entry in bundle.manifest.files.items()
        if name == graph.file or (name.startswith("decoder/") and name.endswith(".data"))
    }


def find(bundle: Bundle, graph: DecoderGraph) -> Path | None:
    """The prepacked copy of a graph; None where there is none that fits, which is logged."""
    folder = folder_of(bundle.path)
    problem = _problem(folder, bundle, graph)
    if problem is None:
        return folder / Path(graph.file).name
    logger.info(
        "%s: %s; its weights are packed in this process's own memory"
        " (python -m decoder_service.export.prepacking BUNDLE makes a shared copy)",
        graph.file,
        problem,
    )
    return None


def _problem(folder: Path, bundle: Bundle, graph: DecoderGraph) -> str | None:
    try:
        index: Any = json.loads((folder / INDEX_NAME).read_text())
        entry = index["graphs"][graph.file]
        source, files, sha256 = entry["source"], entry["files"], entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no prepacked copy for this machine"
    if source != source_of(bundle, graph):
        return "the prepacked copy was made from other files"
    for name, size in files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != size:
            return f"the prepacked copy is damaged: {name}"
    if file_sha256(folder / Path(graph.file).name) != sha256:
        return f"the prepacked copy is damaged: {Path(graph.file).name}"
    return None
