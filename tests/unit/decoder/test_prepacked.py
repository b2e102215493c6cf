"""Prepacked weights: the same numbers, used only where they fit, and mapped."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from decoder_service import prepacked
from decoder_service.export.prepacking import main, prepack
from decoder_service.kv_cache import KvCache
from decoder_service.lanes import DecodeLane, PrefillLane
from decoder_service.runner import OrtRunner
from decoder_service.sessions import open_graphs
from protos.bundle import Bundle
from tests.support.bundles import bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An INT4 bundle's decoder part, without what its export has prepacked."""
    source, target = bundle("untied", "int4"), tmp_path / "bundle"
    shutil.copytree(source / "decoder", target / "decoder")
    shutil.copy(source / "tandem.json", target)
    for folder in (target / "decoder").glob("prepacked-*"):
        shutil.rmtree(folder)
    return target


def logits(root: Path, forms: str) -> list[np.ndarray]:
    """Of a chunk, and of a decode step after it."""
    opened = Bundle.open(root)
    text, graphs = opened.manifest.text, open_graphs(opened, threads=1, weight_forms=forms)
    cache = KvCache(
        layer_count=text.num_hidden_layers,
        slot_count=2,
        head_count=text.num_key_value_heads,
        max_length=32,
        head_dim=text.head_dim,
    )
    runner = OrtRunner(graphs, opened, cache)
    embeds = np.random.default_rng(1).standard_normal((20, text.hidden_size)).astype(np.float32)
    lane = PrefillLane(
        slot=0,
        past=0,
        embeds=embeds[:19],
        position_ids=np.tile(np.arange(19, dtype=np.int32), (3, 1)),
        deepstack=None,
        logit_rows=np.arange(19),
    )
    first = runner.run(lane, None).prefill.copy()
    places = np.array([19])
    step = DecodeLane(embeds=embeds[19:], position_ids=places, past=places.astype(np.int32))
    return [first, runner.run(None, step).decode.copy()]


def graph_of(root: Path) -> tuple[Bundle, Path | None]:
    opened = Bundle.open(root)
    return opened, prepacked.find(opened, opened.manifest.graph)


@pytest.mark.parametrize("forms", ["narrow", "wide"])
def test_prepacked_weights_give_the_same_logits_to_the_bit(copy: Path, forms: str) -> None:
    portable = logits(copy, forms)
    assert prepack(copy) is not None
    assert graph_of(copy)[1] is not None
    for found, expected in zip(logits(copy, forms), portable, strict=True):
        assert np.isfinite(found).all()
        assert (found == expected).all()


def test_an_export_prepacks_for_the_machine_it_runs_on() -> None:
    root = bundle("untied", "int4")
    opened, found = graph_of(root)
    assert found is not None and found.parent == prepacked.folder_of(root)
    assert not any("prepacked" in name for name in opened.manifest.files)


def test_another_machine_or_runtime_uses_the_portable_weights(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepack(copy)
    assert folder is not None
    folder.rename(folder.with_name("prepacked-0123456789abcdef"))
    with caplog.at_level(logging.INFO, "decoder_service.prepacked"):
        assert graph_of(copy)[1] is None
    assert "no prepacked copy for this machine" in caplog.text
    assert np.isfinite(logits(copy, "auto")[1]).all()


@pytest.mark.parametrize("damage", ["data", "graph", "index", "other weights"])
def test_a_copy_that_does_not_fit_is_not_used(copy: Path, damage: str) -> None:
    folder = prepack(copy)
    assert folder is not None
    if damage == "data":
        os.truncate(folder / "model.onnx.data", 100)
    elif damage == "graph":
        with (folder / "model.onnx").open("r+b") as file:
            file.write(b"\0\0")
    elif damage == "index":
        (folder / "index.json").write_text("{")
    else:
        manifest = json.loads((copy / "tandem.json").read_text())
        manifest["files"]["decoder/model.onnx.data"]["sha256"] = "0" * 64
        (copy / "tandem.json").write_text(json.dumps(manifest))
    assert graph_of(copy)[1] is None


def test_the_signature_names_what_the_layout_depends_on(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    first.write_text("processor: 0\nflags\t: avx2 fma\ncpu MHz : 1\n")
    second.write_text("processor: 0\nflags\t: fma avx2\ncpu MHz : 2\n")
    third.write_text("flags\t: avx2 fma avx512_vnni\n")
    assert prepacked.signature(first) == prepacked.signature(second)
    assert prepacked.signature(first) != prepacked.signature(third)


def test_packed_weights_are_mapped_from_the_file(copy: Path) -> None:
    folder = prepack(copy)
    assert folder is not None
    graphs = open_graphs(Bundle.open(copy), threads=1, weight_forms="narrow")
    assert graphs.narrow is not None
    assert str(folder / "model.onnx.data") in Path("/proc/self/maps").read_text()


def test_the_command_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert "no bundle at" in capsys.readouterr().err
