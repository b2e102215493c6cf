"""Which graphs a decoder loads, and what it refuses before it loads one."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from decoder_service.model.sessions import choose_graph, open_graph
from kernels import library
from protos.bundle.manifest import Bundle, BundleError, DecoderGraph
from protos.process.settings import SettingError
from tests.support.bundles import bundle


def kind(graph: DecoderGraph) -> tuple[str, str]:
    return graph.kernels, graph.kv_dtype


def int4() -> Bundle:
    return Bundle.open(bundle("tied", "int4"))


def with_graphs(opened: Bundle, graphs: Sequence[DecoderGraph]) -> Bundle:
    return replace(opened, manifest=replace(opened.manifest, graphs=tuple(graphs)))


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "path", lambda: None)


def test_a_graph_for_another_device_is_refused_by_name() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    foreign = with_graphs(opened, [replace(opened.manifest.graph, execution_provider="cuda")])
    with pytest.raises(BundleError, match="exported for cuda"):
        open_graph(foreign, threads=1)


def test_a_file_that_is_no_graph_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    folder = tmp_path_factory.mktemp("bundle")
    file = folder / opened.manifest.graph.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no graph")
    broken = replace(opened, path=folder)
    with pytest.raises(BundleError, match=r"model\.onnx is no graph"):
        open_graph(broken, threads=1)
    assert capfd.readouterr().out == ""  # stdout belongs to the ready event


@pytest.mark.parametrize("kernels", ["auto", "tandem"])
def test_the_graph_of_our_operators_is_loaded_where_those_run(kernels: str) -> None:
    assert kind(choose_graph(int4(), kernels, "auto")) == ("tandem", "float16")
    assert kind(choose_graph(int4(), kernels, "float32")) == ("tandem", "float32")


def test_the_portable_graph_is_loaded_where_it_is_asked_for() -> None:
    assert kind(choose_graph(int4(), "onnxruntime", "auto")) == ("onnxruntime", "float32")


def test_a_bundle_without_our_graphs_runs_its_portable_one() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    assert kind(choose_graph(opened, "auto", "auto")) == ("onnxruntime", "float32")
    with pytest.raises(SettingError, match="kernels is tandem, the bundle has no graph"):
        choose_graph(opened, "tandem", "auto")


@pytest.mark.usefixtures("without_library")
def test_a_machine_without_our_operators_runs_the_portable_graph() -> None:
    assert kind(choose_graph(int4(), "auto", "auto")) == ("onnxruntime", "float32")
    with pytest.raises(SettingError, match="kernels is tandem, no library of operators"):
        choose_graph(int4(), "tandem", "auto")


def test_a_cache_the_bundle_lacks_is_refused_by_the_setting() -> None:
    with pytest.raises(SettingError, match="kv_dtype .*float16"):
        choose_graph(int4(), "onnxruntime", "float16")


def test_a_float_bundle_holds_one_graph_and_the_weights_once() -> None:
    manifest = Bundle.open(bundle("tied", "fp32")).manifest
    assert [kind(graph) for graph in manifest.graphs] == [("onnxruntime", "float32")]
    decoders = (name for name in manifest.files if name.startswith("decoder/"))
    data = [name for name in decoders if name.endswith(".onnx.data")]
    assert data == ["decoder/model.onnx.data"]
