"""Which graphs a decoder loads, and what it refuses before it loads one."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from decoder_service.kernels import library
from decoder_service.sessions import choose_graphs, open_graphs
from protos.bundle import Bundle, BundleError, DecoderGraph
from protos.settings import SettingError
from tests.support.bundles import bundle


def kinds(graphs: Sequence[DecoderGraph]) -> list[tuple[int, str, str]]:
    return [(graph.lanes, graph.kernels, graph.kv_dtype) for graph in graphs]


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
        open_graphs(foreign, threads=1)


def test_a_file_that_is_no_graph_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    folder = tmp_path_factory.mktemp("bundle")
    file = folder / opened.manifest.graph.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no graph")
    single = with_graphs(replace(opened, path=folder), opened.manifest.graphs[:1])
    with pytest.raises(BundleError, match=r"model\.onnx is no graph"):
        open_graphs(single, threads=1)
    assert capfd.readouterr().out == ""  # stdout belongs to the ready event


@pytest.mark.parametrize("kernels", ["auto", "tandem"])
def test_both_graphs_of_our_operators_are_loaded_where_those_run(kernels: str) -> None:
    chosen = choose_graphs(int4(), kernels, "auto")
    assert kinds(chosen) == [(1, "tandem", "float16"), (2, "tandem", "float16")]
    chosen = choose_graphs(int4(), kernels, "float32")
    assert kinds(chosen) == [(1, "tandem", "float32"), (2, "tandem", "float32")]


def test_the_portable_two_lane_graph_does_everything_where_it_is_asked_for() -> None:
    assert kinds(choose_graphs(int4(), "onnxruntime", "auto")) == [(2, "onnxruntime", "float32")]


def test_a_bundle_without_our_graphs_runs_its_portable_one() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    assert kinds(choose_graphs(opened, "auto", "auto")) == [(2, "onnxruntime", "float32")]
    with pytest.raises(SettingError, match="kernels is tandem, the bundle has no graph"):
        choose_graphs(opened, "tandem", "auto")


@pytest.mark.usefixtures("without_library")
def test_a_machine_without_our_operators_runs_the_portable_graph() -> None:
    assert kinds(choose_graphs(int4(), "auto", "auto")) == [(2, "onnxruntime", "float32")]
    with pytest.raises(SettingError, match="kernels is tandem, no library of operators"):
        choose_graphs(int4(), "tandem", "auto")


def test_a_single_lane_graph_alone_does_everything_it_can() -> None:
    single = with_graphs(int4(), int4().manifest.graphs[:1])
    assert kinds(choose_graphs(single, "auto", "auto")) == [(1, "onnxruntime", "float32")]


def test_a_cache_only_the_portable_graphs_have_chooses_them() -> None:
    assert kinds(choose_graphs(int4(), "auto", "int8")) == [(2, "onnxruntime", "int8")]


@pytest.mark.parametrize(("kernels", "kv_dtype"), [("onnxruntime", "float16"), ("tandem", "int8")])
def test_a_cache_the_bundle_lacks_is_refused_by_the_setting(kernels: str, kv_dtype: str) -> None:
    with pytest.raises(SettingError, match=f"kv_dtype .*{kv_dtype}"):
        choose_graphs(int4(), kernels, kv_dtype)
