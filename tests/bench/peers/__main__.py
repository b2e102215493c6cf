"""Makes what the other engines need.

    python -m tests.bench.peers setup [PEER ...] [--folder FOLDER]
    python -m tests.bench.peers convert SIZE CHECKPOINT [PEER ...] [--folder FOLDER]
    python -m tests.bench.peers tower TOWER [PEER ...] [--folder FOLDER]

`setup` makes an environment for each peer (llama.cpp is built from source: ten minutes on two
cores), `convert` makes each peer's 4-bit model of a random Qwen3-VL checkpoint of the size
(`python -m tests.support.full_size SIZE CHECKPOINT` writes one), `tower` their forms of a vision
tower (`python -m tests.support.full_size_tower TOWER` writes one), for `compare_towers`, with the
environments that takes. All do only what is missing.
The peers' own output is shown: these are the steps that fail, and pip and cmake say why.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.bench.peers import checkpoint, environments, models, places, towers


def main() -> int:
    """Returns the exit code: 1 when something could not be made."""
    arguments = _parse()
    console = Console()
    folder = arguments.folder.absolute()
    usual = towers.PEERS if arguments.command == "tower" else places.PEERS
    peers: Sequence[str] = arguments.peers or usual
    if arguments.command == "convert":
        text = places.model(folder, arguments.size, places.TEXT)
        if not text.exists() and not _all_converted(folder, arguments.size, peers):
            console.rule("the text model as a checkpoint of its own")
            checkpoint.write_text_checkpoint(arguments.checkpoint, text)
    failed = []
    for peer in peers:
        console.rule(f"{arguments.command} {peer}")
        try:
            done = _make(arguments, folder, peer)
        except subprocess.CalledProcessError as error:
            failed.append(peer)
            console.print(f"{peer}: the command above ended with {error.returncode}", style="red")
        else:
            console.print("made" if done else "is there")
    return 1 if failed else 0


def _make(arguments: argparse.Namespace, folder: Path, peer: str) -> bool:
    """Whether there was something to do."""
    if arguments.command == "convert":
        return models.convert(folder, arguments.size, peer)
    done = environments.make_environment(folder, peer)
    return towers.convert(folder, arguments.tower, peer) if arguments.command == "tower" else done


def _all_converted(folder: Path, size: str, peers: Sequence[str]) -> bool:
    return all(places.model(folder, size, peer).exists() for peer in peers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Environments and models of the other engines.")
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("setup")
    convert = commands.add_parser("convert")
    convert.add_argument("size", choices=places.SIZES)
    convert.add_argument("checkpoint", type=Path)
    tower = commands.add_parser("tower")
    tower.add_argument("tower", type=Path)
    known = {
        "setup": places.PEERS,
        "convert": (*places.PEERS, *places.MODELS_ON_DEMAND),
        "tower": towers.PEERS,
    }
    for name, command in (("setup", setup), ("convert", convert), ("tower", tower)):
        command.add_argument("peers", nargs="*", metavar="PEER", choices=[*known[name], []])
        command.add_argument("--folder", type=Path, default=places.FOLDER)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
