"""A quantized bundle once more at accuracy level 0: the same integers, activations in float32.

    python -m deploy.export.comparison.level_zero BUNDLE FOLDER

`tandem verify --checkpoint` serves it to tell rounded arithmetic from wrong arithmetic: at level 0
nothing but the order of sums may differ from transformers over the same weights.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from protos.bundle.manifest import MANIFEST_NAME, Bundle, FileEntry, file_sha256


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    source, folder = (Path(argument) for argument in argv)
    write(Bundle.open(source), folder)
    return 0


def write(bundle: Bundle, folder: Path) -> None:
    """Writes the portable graph anew, with a copy of its weights; other files are links.

    Args:
        bundle: A quantized bundle of any level.
        folder: The bundle to make, for as long as `bundle` lies where it does.
    """
    graph = bundle.manifest.graph
    data = f"{graph.file}.data"
    kept = (graph.file, data, bundle.manifest.embedding_table.file)
    files = {
        name: entry
        for name, entry in bundle.manifest.files.items()
        if name in kept or not name.startswith("decoder/")
    }
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in (graph.file, data):
            (folder / name).symlink_to((bundle.path / name).resolve())
    # ONNX Runtime refuses weights behind a symbolic link, onnx those with a second hard link.
    shutil.copyfile(bundle.path / data, folder / data)
    _write_graph(bundle.path / graph.file, folder / graph.file)
    written = folder / graph.file
    files[graph.file] = FileEntry(size=written.stat().st_size, sha256=file_sha256(written))
    manifest = replace(
        bundle.manifest, graphs=(replace(graph, accuracy_level=0),), files=files, quality={}
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def _write_graph(source: Path, target: Path) -> None:
    model = onnx.load(source, load_external_data=False)
    for node in model.graph.node:
        kept = [value for value in node.attribute if value.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)  # absent, it means 0
    target.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
