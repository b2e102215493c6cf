"""The towers of a comparison: what each is called, and the process it runs in."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import places

BASE = "transformers"
OURS = ("fast", "exact")
# In our own environment, with the drivers' own word for them.
AT_HOME = (*OURS, "portable", "onnxruntime", BASE, "transformers-bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A tower in an environment of its own.

    Attributes:
        environment: Its name in `places`.
        driver: The module that runs it.
        options: Of the driver, before the model.
        model: The file it loads, below the folder of the tower's models.
    """

    environment: str
    driver: str
    options: tuple[str, ...]
    model: str


OPENVINO, LLAMA = "tower_openvino", "tower_llamacpp"
PEERS: Mapping[str, Peer] = {
    "openvino-f32": Peer(
        environment="openvino", driver=OPENVINO, options=("f32",), model="openvino-float/model.xml"
    ),
    "openvino": Peer(
        environment="openvino", driver=OPENVINO, options=("auto",), model="openvino-float/model.xml"
    ),
    "openvino-int8": Peer(
        environment="openvino", driver=OPENVINO, options=("auto",), model="openvino-int8/model.xml"
    ),
    "llamacpp-f16": Peer(
        environment="llamacpp", driver=LLAMA, options=(), model="llamacpp-f16.gguf"
    ),
    "llamacpp-q8": Peer(
        environment="llamacpp", driver=LLAMA, options=(), model="llamacpp-q8_0.gguf"
    ),
}
ENGINES = (*AT_HOME, *PEERS)
INT8 = ("fast", "openvino-int8", "llamacpp-q8")  # what multiplies in integers


def command(name: str, *, tower: Path, inputs: Path, peers: Path, threads: int) -> Sequence[str]:
    """The command line of an engine's driver.

    Args:
        name: One of `ENGINES`.
        tower: Folder of the tower.
        inputs: Folder of the images.
        peers: Folder of the peers' environments and models.
        threads: Of one pass.

    Raises:
        PeerMissing: its environment or model has not been made.
    """
    if name in AT_HOME:
        module = [sys.executable, "-m", "tests.bench.drivers.tower", name, str(tower)]
        return [*module, str(inputs), str(threads)]
    peer = PEERS[name]
    python = places.python(peers, peer.environment).absolute()  # the link finds the environment
    model = places.tower_models(peers, tower) / peer.model
    for needed in (python, model):
        if not needed.exists():
            made_by = f"python -m tests.bench.peers tower {tower}"
            raise places.PeerMissing(f"{needed} is missing; `{made_by}` makes it")
    module = [str(python), "-m", f"tests.bench.drivers.{peer.driver}", *peer.options]
    return [*module, str(model.absolute()), str(inputs), str(threads)]
