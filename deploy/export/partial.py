"""The folder an export works in: it remembers finished stages, and only its rename is a bundle."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.export.errors import ExportError
from protos.bundle.manifest import FileEntry

STATE_NAME = "export.json"


class PartialBundle:
    """BUNDLE.partial beside BUNDLE, locked by one exporter at a time.

    A stage counts as finished once its files are synced to disk and listed in the state file. A
    later export with the same key skips it; one with another key starts over.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.partial")
        self._key = key
        self._handle: int | None = None
        self._done: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        refuse_existing(self.target)
        self.path.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_RDONLY)
        try:
            # The lock is on the folder itself and ends with the process, however that ends.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refuse_existing(self.target)
            self._load_state()
        except BlockingIOError as error:
            os.close(self._handle)
            raise ExportError(f"another export is writing {self.target}") from error
        except BaseException:  # Ctrl-C included: __exit__ will not run, so the lock goes here.
            os.close(self._handle)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def _load_state(self) -> None:
        state: Any = None
        if (self.path / STATE_NAME).is_file():
            try:
                state = json.loads((self.path / STATE_NAME).read_text())
            except ValueError:
                state = None  # cut off while being written; start over
        if isinstance(state, dict) and state.get("key") == self._key:
            self._done = state["done"]
        else:
            _empty(self.path)
        self._save_state()

    def size(self) -> int:
        """Bytes that lie there: of finished stages, and of what the next run writes anew."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def finished(self, stage: str) -> bool:
        """Whether the stage's files are all there with the recorded sizes."""
        files = self._done.get(stage)
        return files is not None and all(
            (self.path / name).is_file() and (self.path / name).stat().st_size == entry["size"]
            for name, entry in files.items()
        )

    def finish(self, stage: str, files: Mapping[str, FileEntry]) -> None:
        """Records a stage after its files have reached the disk."""
        for name in files:
            _sync(self.path / name)
        self._done[stage] = {name: asdict(entry) for name, entry in files.items()}
        self._save_state()

    def files(self) -> dict[str, FileEntry]:
        """The files of all finished stages."""
        return {
            name: FileEntry(**entry)
            for files in self._done.values()
            for name, entry in files.items()
        }

    def publish(self) -> None:
        """Makes the folder the bundle, in one rename.

        Raises:
            ExportError: the target has appeared meanwhile.
        """
        (self.path / STATE_NAME).unlink()
        refuse_existing(self.target)
        self.path.rename(self.target)
        _sync(self.target.parent)

    def _save_state(self) -> None:
        partial = self.path / f"{STATE_NAME}.new"
        partial.write_text(json.dumps({"key": self._key, "done": self._done}))
        partial.replace(self.path / STATE_NAME)


def refuse_existing(target: Path) -> None:
    """Refuses a name that is taken.

    Raises:
        ExportError: there is something, or a link to nothing.
    """
    if target.exists() or target.is_symlink():
        raise ExportError(f"{target} exists already; choose another name or remove it")


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def key_of(parts: Mapping[str, Any]) -> str:
    """A digest of everything that decides what an export writes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
