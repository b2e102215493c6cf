"""An environment that holds the decoder's own distributions and no others."""

import importlib.metadata
import os
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.decoder_process import DecoderProcess

ROOT = Path(__file__).parents[2]


def distributions(name: str, extras: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    """A distribution's whole closure of requirements, itself apart, by canonical name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(name, extra) for extra in ("", *extras)]
    while queue:
        owner, extra = queue.pop()
        if (owner, extra) in seen:
            continue
        seen.add((owner, extra))
        distribution = importlib.metadata.distribution(owner)
        found[canonicalize_name(owner)] = distribution
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue += [(requirement.name, e) for e in ("", *sorted(requirement.extras))]
    found.pop(canonicalize_name(name))
    return found


def make_environment(folder: Path) -> Path:
    """Builds a virtual environment of links to what `tandem-vlm[decoder]` requires.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for distribution in distributions("tandem-vlm", ["decoder"]).values():
        for file in distribution.files or ():
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            link = site / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(file))))
    for package in ("protos", "kernels", "decoder_service"):
        (site / package).symlink_to(ROOT / package)
    return python


def lone_decoder(python: Path, bundle: Path, log: Path, *flags: str) -> DecoderProcess:
    """A decoder in such an environment, with none of our variables."""
    path = {"PATH": os.environ["PATH"]}
    return DecoderProcess(bundle, log, flags, python=python, environment=path)
