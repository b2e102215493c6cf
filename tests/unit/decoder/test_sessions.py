"""Which graphs a decoder loads, and what it refuses before it loads one."""

from dataclasses import replace

import pytest

from decoder_service.sessions import choose_graphs, open_graphs
from protos.bundle import Bundle, BundleError
from protos.settings import SettingError
from tests.support.bundles import bundle


def test_a_graph_for_another_device_is_refused_by_name() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    graph = replace(opened.manifest.graph, execution_provider="cuda")
    foreign = replace(opened, manifest=replace(opened.manifest, graphs=(graph,)))
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
    with pytest.raises(BundleError, match=r"model\.onnx is no graph"):
        open_graphs(replace(opened, path=folder), threads=1, weight_forms="narrow")
    assert capfd.readouterr().out == ""  # stdout belongs to the ready event


def test_both_forms_are_loaded_where_their_weights_differ() -> None:
    opened = Bundle.open(bundle("tied", "int4"))
    chosen = choose_graphs(opened, "auto", "float32")
    assert [(graph.lanes, graph.precision) for graph in chosen] == [(1, "int4"), (2, "int8")]


def test_one_graph_does_everything_where_both_have_the_same_weights() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    assert [graph.lanes for graph in choose_graphs(opened, "auto", "float32")] == [2]


@pytest.mark.parametrize(("forms", "lanes"), [("narrow", 1), ("wide", 2)])
def test_a_setting_turns_either_form_off(forms: str, lanes: int) -> None:
    opened = Bundle.open(bundle("tied", "int4"))
    assert [graph.lanes for graph in choose_graphs(opened, forms, "float32")] == [lanes]


def test_a_form_the_bundle_lacks_is_refused_by_the_setting() -> None:
    opened = Bundle.open(bundle("tied", "fp32"))
    single = replace(opened, manifest=replace(opened.manifest, graphs=opened.manifest.graphs[:1]))
    with pytest.raises(SettingError, match="weight_forms is wide"):
        choose_graphs(single, "wide", "float32")
    with pytest.raises(SettingError, match="kv_dtype is int8"):
        choose_graphs(
            replace(opened, manifest=replace(opened.manifest, graphs=opened.manifest.graphs[:1])),
            "auto",
            "int8",
        )
