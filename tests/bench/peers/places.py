"""Where the peers' environments and models lie, and the commands that drive them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".cache" / "peers"  # ignored by git
PEERS = ("llamacpp", "openvino", "genai")
# The same engine with the blocks its builder chooses, 32; `genai` has blocks of 128, which serve
# it better. Made and measured when asked for.
MODELS_ON_DEMAND = ("genai32",)
TEXT = "text"  # the checkpoint all models are made of
SIZES = ("2b", "4b")

_FILES = {"llamacpp": "llamacpp.gguf"}
_ENGINES = {"genai32": "genai"}


class PeerMissing(Exception):
    """An environment or a model has not been made; the text says which command makes it."""


def engine(peer: str) -> str:
    """The engine that runs a peer's model."""
    return _ENGINES.get(peer, peer)


def environment(folder: Path, peer: str) -> Path:
    """The virtual environment of a peer."""
    return folder / engine(peer)


def python(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return environment(folder, peer) / "bin" / "python"


def model(folder: Path, size: str, part: str) -> Path:
    """A peer's model, or the text checkpoint."""
    return folder / "models" / size / _FILES.get(part, part)


def tower_models(folder: Path, tower: Path) -> Path:
    """Where the peers' models of a vision tower lie."""
    return folder / "models" / tower.resolve().name


def commands(folder: Path, size: str) -> Mapping[str, Sequence[str]]:
    """The driver of each peer, still without the number of threads."""
    return {
        peer: [
            str(python(folder, peer).absolute()),  # not resolved: the link finds the environment
            "-m",
            f"tests.bench.drivers.{engine(peer)}",
            str(model(folder, size, peer).absolute()),
        ]
        for peer in (*PEERS, *MODELS_ON_DEMAND)
    }


def check(command: Sequence[str]) -> None:
    """Looks whether what a driver needs is there.

    Raises:
        PeerMissing: it is not.
    """
    interpreter, target = Path(command[0]), Path(command[3])
    if not interpreter.exists():
        raise PeerMissing(f"{interpreter} is missing; `python -m tests.bench.peers setup` makes it")
    if not target.exists():
        raise PeerMissing(f"{target} is missing; `python -m tests.bench.peers convert` makes it")
