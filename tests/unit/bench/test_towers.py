"""A comparison of towers: what all are given, what is told of them, and the graph for peers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from deploy.export.vision.samples import SampleShape, samples
from protos.media.grid_inputs import GridSettings, grid_inputs
from protos.media.images import Grid
from tests.bench.drivers import towers
from tests.bench.peers import places
from tests.bench.towers import engines, inputs, plain_graph
from tests.bench.towers.figures import Cosines, best_peer, cosines, figures
from tests.support import full_size_tower
from vision_service.jobs import Patches
from vision_service.towers.onnx_tower import OnnxTower

CONFIG = {
    **full_size_tower.CONFIG,
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_heads": 2,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0],
    "out_hidden_size": 32,
}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_size_tower.build(tmp_path_factory.mktemp("tower"), CONFIG)


def test_the_plain_graph_computes_what_the_portable_one_does(tower: Path, tmp_path: Path) -> None:
    graph = plain_graph.write(tower, tmp_path / "plain")
    config = json.loads((tower / "vision" / "config.json").read_text())
    (sample,) = samples(SampleShape.from_config(config), 1, seed=0)
    (wanted,) = OnnxTower.load(tower, form="portable", threads=1).encode(
        [Patches(sample.patches, sample.grid)]
    )
    feeds = grid_inputs([sample.grid], GridSettings.from_config(config)).feeds()
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    made = session.run(None, {"pixel_values": sample.patches, **feeds})
    np.testing.assert_allclose(np.stack(made), wanted, rtol=1e-5, atol=1e-5)
    assert {node.op_type for node in _nodes(graph)} >= {"Softmax"}
    assert not {node.domain for node in _nodes(graph)} - {""}


def _nodes(graph: Path) -> list[Any]:
    import onnx

    return list(onnx.load(graph, load_external_data=False).graph.node)


def test_an_image_comes_back_from_its_file(tower: Path, tmp_path: Path) -> None:
    inputs.write_calibration(tower, 1, tmp_path)
    given = towers.read(towers.path_of(tmp_path, 0))
    grid = Grid(*given.grid)
    assert given.pixels.shape == (grid.patches, 1536)
    assert set(given.feeds) == {
        "position_indices",
        "position_weights",
        "rotary_cos",
        "rotary_sin",
        "segment_bounds",
    }


def test_patches_are_cut_as_the_exporter_cuts_its_samples() -> None:
    shape = SampleShape(channels=3, frames=2, side=16, merge=2, table_side=8)
    grid = Grid(1, 2, 4)
    image = np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3)
    patches = inputs.cut(image, grid, shape).reshape(-1, 3, 2, 16, 16)
    # The third patch is the first of the second row: merged patches lie side by side.
    wanted = (image[16:, :16] / 127.5 - 1).transpose(2, 0, 1)
    np.testing.assert_allclose(patches[2, :, 0], wanted, atol=1e-6)
    np.testing.assert_array_equal(patches[:, :, 0], patches[:, :, 1])


def test_the_best_peer_is_the_one_that_is_beaten_least() -> None:
    rounds = [
        {"fast": 1.0, "exact": 0.5, "transformers": 4.0, "openvino": 1.5},
        {"fast": 2.0, "exact": 0.5, "transformers": 8.0, "openvino": 4.0},
    ]
    best = best_peer(432, rounds)
    assert best is not None
    assert (best.engine, best.ratio) == ("openvino", 1.75)
    assert best_peer(432, [{"exact": 1.0, "transformers": 4.0}]) is None
    assert best_peer(432, [{"fast": 1.0, "exact": 1.0}]) is None


def test_figures_tell_of_each_engine_beside_transformers() -> None:
    alike = {"fast": Cosines(mean=0.9999, low=0.999)}
    found = figures(1000, [{"fast": 0.5, "transformers": 2.0}], 1e11, alike)
    fast, base = found
    assert (fast.engine, fast.ratio, fast.patches_per_s) == ("fast", 4.0, 2000.0)
    assert (base.ratio, base.cosines, fast.cosines) == (1.0, None, alike["fast"])


def test_cosines_are_of_the_level_where_they_are_least() -> None:
    wanted = np.ones((2, 3, 8), np.float32)
    made = wanted.copy()
    made[1, :, 0] = -1
    assert cosines(made, wanted).mean == pytest.approx(0.75)


def test_a_tower_without_its_model_is_told_how_to_be_made(tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        return [*engines.command(name, tower=tmp_path, inputs=tmp_path, peers=tmp_path, threads=2)]

    assert command("onnxruntime")[3] == "onnxruntime"
    with pytest.raises(places.PeerMissing, match="peers tower"):
        command("openvino-int8")
    python = places.python(tmp_path, "openvino")
    model = places.tower_models(tmp_path, tmp_path) / engines.PEERS["openvino-int8"].model
    for file in (python, model):
        file.parent.mkdir(parents=True)
        file.touch()
    assert command("openvino-int8")[:4] == [
        str(python),
        "-m",
        "tests.bench.drivers.tower_openvino",
        "auto",
    ]
