"""The file in which a tier's log is kept, as long as its disk takes it."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)


class LogFile:
    """Takes lines; close it at the end.

    A read-only or full disk must not keep the model from serving: one warning, and what comes
    then is in no file.

    Args:
        path: Where; None: nowhere.
        keeps: Whether to write behind what is there.
    """

    def __init__(self, path: Path | None, *, keeps: bool) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, in which what could not be written would be tried again for ever.
            self._file = path.open("ab" if keeps else "wb", buffering=0)
        except OSError as error:
            self._warn(error)

    def write(self, line: str) -> None:
        """Takes a line, its end included."""
        if self._file is None:
            return
        try:
            self._file.write(line.encode(errors="replace"))
        except OSError as error:
            self._warn(error)
            self.close()

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        if self._file is not None:
            with suppress(OSError):  # some file systems tell a full disk only here
                self._file.close()
            self._file = None

    def _warn(self, error: OSError) -> None:
        logger.warning(
            "%s cannot be written (%s); serving goes on without it", self._path, error.strerror
        )
