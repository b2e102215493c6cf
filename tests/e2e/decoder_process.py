"""A decoder process in an environment that holds the decoder's own distributions and no others."""

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60


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
    for package in ("protos", "decoder_service"):
        (site / package).symlink_to(ROOT / package)
    return python


class DecoderProcess:
    """`python -m decoder_service`, stopped at the end; use as a context manager."""

    def __init__(self, python: Path, bundle: Path, log: Path, *flags: str) -> None:
        self.log = log
        command = [str(python), "-m", "decoder_service", "--bundle", str(bundle), *flags]
        environment = {"PATH": os.environ["PATH"]}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
                cwd=log.parent,
            )
        self.port = 0

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends with the process, if that comes first
        assert line, self.log.read_text()
        event = json.loads(line)
        assert event["event"] == "serving" and event["tier"] == "decoder"
        self.port = event["ports"]["grpc"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def run_to_end(self) -> tuple[int, str]:
        """Waits for a process that is not expected to serve.

        Returns:
            Its exit code and what it wrote to stderr.
        """
        self.process.communicate(timeout=START_TIMEOUT_S)
        return self.process.returncode, self.log.read_text()
