"""The same random weights in each peer's own 4-bit form."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.peers import places

# Blocks of 128 are what serves it best, and what OpenVINO is given.
GENAI_OPTIONS = ("block_size=128",)


def convert(folder: Path, size: str, peer: str) -> bool:
    """Makes a peer's model of a size unless it is there already.

    Returns:
        Whether there was something to do.

    Raises:
        subprocess.CalledProcessError: the peer's converter failed; it has said why.
    """
    target = places.model(folder, size, peer)
    if target.exists():
        return False
    # Under another name first: a folder that exists is a model that is whole.
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    command = _COMMANDS[peer](places.model(folder, size, places.TEXT), partial)
    subprocess.run(
        [str(places.python(folder, peer).absolute()), "-m", *command],
        check=True,
        cwd=places.ROOT,
        env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    )
    shutil.rmtree(partial.with_name(f"{partial.name}.cache"), ignore_errors=True)
    partial.rename(target)
    return True


def _genai(checkpoint: Path, target: Path) -> list[str]:
    cache = target.with_name(f"{target.name}.cache")
    command = ["onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(target)]
    return [
        *command,
        "-p",
        "int4",
        "-e",
        "cpu",
        "-c",
        str(cache),
        "--extra_options",
        *GENAI_OPTIONS,
    ]


_COMMANDS: Mapping[str, Callable[[Path, Path], Sequence[str]]] = {
    "llamacpp": lambda source, target: ["tests.bench.peers.to_gguf", str(source), str(target)],
    "openvino": lambda source, target: ["tests.bench.peers.to_openvino", str(source), str(target)],
    "genai": _genai,
}
