"""Stores weights in the layout of this machine's kernels, for decoders to map and share.

    python -m decoder_service.export.prepacking BUNDLE

An export does it for the machine it runs on; the command does it where a bundle was copied to, or
after an update of ONNX Runtime. See decoder_service/prepacked.py for what it writes and when a
decoder uses it.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decoder_service import prepacked
from decoder_service.export import int8_cache
from decoder_service.sessions import choose_graphs
from protos.bundle import Bundle, BundleError, DecoderGraph, file_sha256

# Smaller constants stay in the graph.
EXTERNAL_FROM_BYTES = 1024
# Of a packed weight in memory and hence in the file: what ONNX Runtime's own allocations have.
ALIGNMENT = 64


def prepack(root: Path) -> Path | None:
    """Writes the prepacked copies of the graphs a decoder loads by default.

    Args:
        root: A bundle with its manifest; it may still lie in a partial folder.

    Returns:
        Their folder; None for a bundle that does not run on CPUs, or whose half precision weights
        would be stored in single precision.

    Raises:
        BundleError: the bundle is missing or damaged.
    """
    bundle = Bundle.open(root)
    manifest = bundle.manifest
    if manifest.graph.execution_provider != "cpu" or manifest.graph.precision == "fp16":
        return None
    folder = prepacked.folder_of(root)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    graphs = {
        graph.file: _write(bundle, graph, partial)
        for graph in choose_graphs(bundle, "auto", "float32")
    }
    for graph in bundle.manifest.graphs:
        float_graph = int8_cache.float_name(graph.file)
        if graph.kv_dtype == "int8" and float_graph in graphs:
            graphs[graph.file] = _write_int8(bundle, graph, Path(float_graph).name, partial)
    index = json.dumps({"signature": prepacked.signature(), "graphs": graphs}, indent=2)
    (partial / prepacked.INDEX_NAME).write_text(index)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _write(bundle: Bundle, graph: DecoderGraph, folder: Path) -> dict[str, Any]:
    """Writes one graph and its data; returns its entry of the index."""
    import onnxruntime

    name = Path(graph.file).name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the result is for this machine; that is the idea
    options.optimized_model_filepath = str(folder / name)
    for key, value in (
        ("session.save_external_prepacked_constant_initializers", "1"),
        ("session.optimized_model_external_initializers_file_name", f"{name}.data"),
        (
            "session.optimized_model_external_initializers_min_size_in_bytes",
            str(EXTERNAL_FROM_BYTES),
        ),
    ):
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(
            str(bundle.path / graph.file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own exception types are not importable by name
        raise BundleError(f"{graph.file} is no graph ONNX Runtime loads") from error
    _drop_unaligned(folder / name)
    files = sorted(path for path in folder.iterdir() if path.name.startswith(name))
    return {
        "source": prepacked.source_of(bundle, graph),
        "sha256": file_sha256(folder / name),
        "files": {path.name: path.stat().st_size for path in files},
    }


def _write_int8(bundle: Bundle, graph: DecoderGraph, base: str, folder: Path) -> dict[str, Any]:
    """Writes the int8 sibling of a prepacked graph, over the same data; returns its entry."""
    import onnx

    scales = int8_cache.scales_of(onnx.load(bundle.path / graph.file, load_external_data=False))
    model = onnx.load(folder / base, load_external_data=False)
    int8_cache.quantize(model, scales)
    file, data = folder / Path(graph.file).name, folder / f"{base}.data"
    file.write_bytes(model.SerializeToString())
    return {
        "source": prepacked.source_of(bundle, graph),
        "sha256": file_sha256(file),
        "files": {path.name: path.stat().st_size for path in (file, data) if path.is_file()},
    }


def _drop_unaligned(file: Path) -> None:
    """Forgets packed weights that do not lie at a multiple of `ALIGNMENT` in the data file.

    NOTE: kernels find the parts of a packed weight by rounding addresses up, so the same bytes at
    another alignment are read wrong, without an error. ONNX Runtime aligns what is larger than
    1 MiB only; the smaller ones are packed by each process for itself.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = [entry for entry in tensor.external_data if _is_aligned(entry)]
        if len(kept) < len(tensor.external_data):
            del tensor.external_data[:]
            tensor.external_data.extend(kept)
    file.write_bytes(model.SerializeToString())


def _is_aligned(entry: Any) -> bool:
    if not entry.key.startswith("prepacked_"):
        return True
    # key|offset;length;checksum, the last part once for each of the weight's buffers
    buffers = entry.value.split("|")[1:]
    return all(int(buffer.split(";")[0]) % ALIGNMENT == 0 for buffer in buffers)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decoder_service.export.prepacking")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    arguments = parser.parse_args(argv)
    try:
        folder = prepack(arguments.bundle)
    except BundleError as error:
        sys.stderr.write(f"prepacking: {error}\n")
        return 2
    sys.stdout.write(f"{folder or 'nothing to do: no CPU weights in these formats'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
