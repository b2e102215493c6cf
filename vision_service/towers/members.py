"""The images of one pass of a tower, and which of them nobody waits for any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from kernels.passes import NEVER


class Abandoned(Exception):
    """Nobody waits for the pass any more, so it was dropped half-way."""


class Members:
    """Who is in a pass. One thread runs it and looks; any thread may say that an image leaves.

    Args:
        count: Images of the pass.

    Attributes:
        leaves_at: int32 [images], the step of the pass from which on an image is out; see
            `kernels.passes.running`.
        rows_computed: int64 [images], how many rows of each the steps have computed, where the
            tower counts them.
    """

    def __init__(self, count: int) -> None:
        self.leaves_at = np.full(count, NEVER, np.int32)
        self.rows_computed = np.zeros(count, np.int64)
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def leave(self, index: int, *, step: int = 0) -> None:
        """Nobody waits for an image any more; it does not come back.

        Args:
            index: Of the image.
            step: From which step of the pass on it is out; 0 is at once.
        """
        with self._lock:
            self.leaves_at[index] = min(self.leaves_at[index], step)
            stop = None if self.remaining else self._stop
        if stop is not None:
            stop()

    def abandon(self) -> None:
        """All images leave."""
        for index in range(len(self.leaves_at)):
            self.leave(index)

    @property
    def remaining(self) -> list[int]:
        """The images that somebody still waits for."""
        return [index for index, step in enumerate(self.leaves_at) if step == NEVER]

    @property
    def are_complete(self) -> bool:
        """Whether nobody has left."""
        return bool((self.leaves_at == NEVER).all())

    @contextmanager
    def ending(self, stop: Callable[[], None]) -> Iterator[None]:
        """Calls `stop` when nobody remains while the block runs.

        Args:
            stop: Makes the block end early; called by the thread on which the last image leaves,
                more than once where it is told so again.

        Raises:
            Abandoned: nobody remains, whatever the block raised then.
        """
        with self._lock:
            self._stop = stop
            is_empty = not self.remaining
        if is_empty:
            stop()
        try:
            yield
        except Exception as error:  # whatever a stopped run ends with
            if not self.remaining:
                raise Abandoned from error
            raise
        finally:
            with self._lock:
                self._stop = None
        if not self.remaining:
            raise Abandoned
