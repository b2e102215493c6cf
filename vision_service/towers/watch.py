"""Ends a running graph when nobody waits for its result any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL_S = 0.02  # between two looks; a block of the 2B tower takes several times that


class Abandoned(Exception):
    """Nobody waits for the batch any more, so it was dropped half-way."""


@contextmanager
def watching(abandoned: Callable[[], bool], stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop`, once, as soon as `abandoned` is true while the block runs.

    A run of a graph does not come back between its nodes, so a thread of its own looks.

    Args:
        abandoned: Cheap, and safe to call from another thread.
        stop: Makes the block end early.

    Raises:
        Abandoned: it was true, whatever the block raised then.
    """
    ended, stopped = threading.Event(), threading.Event()

    def look() -> None:
        while not abandoned():
            if ended.wait(INTERVAL_S):
                return
        stopped.set()
        stop()

    thread = threading.Thread(target=look, name="abandoned", daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:  # whatever a stopped run ends with
        if stopped.is_set():
            raise Abandoned from error
        raise
    finally:
        ended.set()
        thread.join()
    if stopped.is_set():
        raise Abandoned
