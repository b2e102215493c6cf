"""What the runner refuses before it loads a graph."""

from dataclasses import replace

import pytest

from decoder_service.runner import open_session
from protos.bundle import Bundle, BundleError
from tests.support.bundles import bundle


def test_a_graph_for_another_device_is_refused_by_name() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    graph = replace(opened.manifest.graph, execution_provider="cuda")
    foreign = replace(opened, manifest=replace(opened.manifest, graphs=(graph,)))
    with pytest.raises(BundleError, match="exported for cuda"):
        open_session(foreign, threads=1)


def test_a_file_that_is_no_graph_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    folder = tmp_path_factory.mktemp("bundle")
    file = folder / opened.manifest.graph.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx is no graph"):
        open_session(replace(opened, path=folder), threads=1)
