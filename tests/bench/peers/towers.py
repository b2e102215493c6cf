"""A vision tower in each peer's own form."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.peers import places

PEERS = ("openvino", "llamacpp")
CALIBRATION_PATCHES = 1024  # of a few images: NNCF runs them all in float32, again and again


def convert(folder: Path, tower: Path, peer: str) -> bool:
    """Makes a peer's models of a tower unless they are there already.

    Args:
        folder: Of the peers.
        tower: As `tests.support.full_size_tower` writes it.
        peer: One of `PEERS`.

    Returns:
        Whether there was something to do.

    Raises:
        subprocess.CalledProcessError: the peer's converter failed; it has said why.
    """
    models = places.tower_models(folder, tower).absolute()
    models.mkdir(parents=True, exist_ok=True)
    made = {"openvino": _openvino, "llamacpp": _llamacpp}[peer](folder, tower.resolve(), models)
    return any([*made])


def _openvino(folder: Path, tower: Path, models: Path) -> Iterator[bool]:
    """In float32, and in INT8 by drawn images."""
    # Only these need what our exporter needs.
    from tests.bench.towers import inputs, plain_graph

    def write(target: Path, calibrates: bool) -> None:
        with tempfile.TemporaryDirectory(dir=models) as made:
            graph = plain_graph.write(tower, Path(made))
            if calibrates:
                inputs.write_calibration(tower, CALIBRATION_PATCHES, Path(made))
            _run(folder, "openvino", "tower_to_openvino", graph, target, made)

    yield _once(models / "openvino-float", lambda target: write(target, False))
    yield _once(models / "openvino-int8", lambda target: write(target, True))


def _llamacpp(folder: Path, tower: Path, models: Path) -> Iterator[bool]:
    """With weights in float16, and in blocks of INT8."""
    for kind in ("f16", "q8_0"):

        def write(target: Path, kind: str = kind) -> None:
            _run(folder, "llamacpp", "tower_to_gguf", tower, target, kind)

        yield _once(models / f"llamacpp-{kind}.gguf", write)


def _once(target: Path, make: Callable[[Path], None]) -> bool:
    if target.exists():
        return False
    # Under another name first: what exists is a model that is whole.
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    partial.rename(target)
    return True


def _run(folder: Path, peer: str, module: str, *arguments: Path | str) -> None:
    python = str(places.python(folder, peer).absolute())
    subprocess.run(
        [python, "-m", f"tests.bench.peers.{module}", *map(str, arguments)],
        check=True,
        cwd=places.ROOT,
        env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    )
