"""A bundle at level 0 is the bundle with another graph: the same integers, nothing else changed."""

from pathlib import Path

import onnx

from deploy.export.comparison import level_zero
from protos.bundle.manifest import PARTS, Bundle
from tests.support.bundles import bundle


def levels(file: Path) -> set[int]:
    nodes = onnx.load(file, load_external_data=False).graph.node
    return {value.i for node in nodes for value in node.attribute if value.name == "accuracy_level"}


def test_the_graph_loses_its_level_and_every_other_file_stays(tmp_path: Path) -> None:
    source = Bundle.open(bundle("odd", "int4"))
    level_zero.write(source, tmp_path / "bundle")
    made = Bundle.open(tmp_path / "bundle")
    made.verify_files(PARTS, advance=lambda size: None)
    assert made.digest != source.digest
    assert [graph.accuracy_level for graph in made.manifest.graphs] == [0]
    file = source.manifest.graph.file
    assert (levels(source.path / file), levels(made.path / file)) == ({4}, set())
    exported = bundle("odd", "int4", accuracy_level=0)
    for name in set(made.manifest.files) - {file}:
        assert (made.path / name).read_bytes() == (exported / name).read_bytes()
