"""Makes the virtual environment of a clone, for `make`.

    python3 -m deploy.install .venv            what `make demo` needs
    python3 -m deploy.install .venv --tests    what `make test` needs beside that

It shows one line a step with its time; what pip and the compiler say goes to `<folder>/log`, and
is shown when they fail. It runs before anything is installed, so it imports the standard library
and nothing that needs more.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from kernels import build

LOCK = Path("requirements.lock")
TEST_LOCK = Path("requirements-test.lock")
# Reading the index pages of this lock costs an older pip 20 s more than this one.
LEAST_PIP = (25, 0)
# Modules are compiled when they are first imported: of the 18,000 that are installed, those that
# run are a third, and compiling all took more than half of the installation.
INSTALL = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile")
REFRESH_S = 0.1
LAST_LINES = 15  # shown of a failed step
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
LABEL_WIDTH = 34


class InstallError(Exception):
    """A step failed; the text says which, with the end of its log."""


class Step:
    """One command, started at once; `finish` waits for it and shows how long it took."""

    def __init__(self, label: str, command: Sequence[str | Path], log: Path) -> None:
        self._label = label
        self._log = log
        self._started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PIP_PROGRESS_BAR": "off"},
            )
        self._ended: float | None = None
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def finish(self) -> None:
        """Waits, with a line that moves on a terminal.

        Raises:
            InstallError: the command failed.
        """
        show = sys.stdout
        label = f"{self._label:<{LABEL_WIDTH}}"
        if not show.isatty():
            show.write(f"  {label}")
            show.flush()
        turn = 0
        while self._waiter.is_alive():
            if show.isatty():
                now = f"{SPINNER[turn % len(SPINNER)]} {label}{self._seconds():6.1f} s"
                show.write(f"\r\x1b[2K{now}  {subject(self._log)}")
                show.flush()
            turn += 1
            self._waiter.join(REFRESH_S)
        show.write(f"\r\x1b[2K  {label}" if show.isatty() else "")
        if self._process.returncode != 0:
            show.write("failed\n")
            raise InstallError(f"{self._label} failed:\n{self._end()}\nall of it: {self._log}")
        show.write(f"{self._seconds():6.1f} s\n")
        show.flush()

    def stop(self) -> None:
        """Ends the command if it still runs."""
        if self._waiter.is_alive():
            self._process.terminate()
            self._waiter.join()

    def _wait(self) -> None:
        """Notes when the command ended, which may be long before `finish`."""
        self._process.wait()
        self._ended = time.monotonic()

    def _seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._started

    def _end(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])


def subject(log: Path) -> str:
    """What pip is at, by its log: a package's name, or "unpacking"."""
    lines = r"^(Collecting|Processing|Installing) (\S+)"
    found = list(re.finditer(lines, log.read_text(errors="replace"), re.MULTILINE))
    if not found:
        return ""
    verb, what = found[-1].groups()
    if verb == "Installing":
        return "unpacking"
    if verb == "Processing":  # a file: name-version-tags.whl
        return what.rpartition("/")[2].partition("-")[0]
    return re.sub(r"[\[=<>~!;].*", "", what)


class Installer:
    """The steps, in the virtual environment `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._python = folder / "bin" / "python"

    def product(self) -> None:
        """Everything that serves and exports, the kernels, and the `tandem` command.

        Raises:
            InstallError: a step failed.
        """
        if not (self._folder / "bin" / "pip").exists():
            self._run("virtual environment", [sys.executable, "-m", "venv", self._folder])
        if self._pip_version() < LEAST_PIP:
            self._run("newer pip", [self._python, *INSTALL, "--upgrade", "pip"])
        kernels = self._start_kernels()
        try:
            label = f"{len(pinned(LOCK))} packages"
            self._run(label, [self._python, *INSTALL, "--requirement", LOCK])
            if kernels is not None:
                kernels.finish()
        finally:
            if kernels is not None:
                kernels.stop()
        # What builds it is in the lock; in an environment of its own it would be fetched again.
        here = ["--no-deps", "--no-build-isolation", "--editable", "."]
        self._run("tandem", [self._python, *INSTALL, *here])

    def tests(self) -> None:
        """What tests and linters need beside `product`.

        Raises:
            InstallError: a step failed.
        """
        label = f"{len(pinned(TEST_LOCK))} packages for tests"
        self._run(label, [self._python, *INSTALL, "--no-deps", "--requirement", TEST_LOCK])

    def _start_kernels(self) -> Step | None:
        """Compiles beside pip, which keeps one core busy; None where there are no kernels."""
        if not build.is_supported():
            return None
        compiler = next(line for line in pinned(LOCK) if line.startswith("ziglang=="))
        self._run("compiler", [self._python, *INSTALL, compiler])
        return self._step("kernels, beside the packages", [self._python, "-m", build.__name__])

    def _run(self, label: str, command: Sequence[str | Path]) -> None:
        self._step(label, command).finish()

    def _step(self, label: str, command: Sequence[str | Path]) -> Step:
        name = re.sub(r"\W+", "-", label)
        return Step(label, command, self._folder / "log" / f"{name}.log")

    def _pip_version(self) -> tuple[int, ...]:
        """Of the environment's pip; (0,) when it says nothing of the kind."""
        said = subprocess.run(
            [self._python, "-m", "pip", "--version"], capture_output=True, text=True, check=False
        ).stdout
        found = re.match(r"pip (\d+)\.(\d+)", said)
        return tuple(int(part) for part in found.groups()) if found else (0,)


def pinned(lock: Path) -> list[str]:
    """The requirements in a lock file."""
    lines = (line.strip() for line in lock.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, from a clone's root; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.install", description=__doc__)
    parser.add_argument("folder", type=Path, help="the virtual environment")
    parser.add_argument("--tests", action="store_true", help="install what tests need instead")
    arguments = parser.parse_args(argv)
    installer = Installer(arguments.folder)
    sys.stdout.write(f"installing into {arguments.folder}, logs in {arguments.folder / 'log'}\n")
    try:
        installer.tests() if arguments.tests else installer.product()
    except InstallError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
