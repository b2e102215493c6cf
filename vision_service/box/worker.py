"""Boxed workers, and the nursery that forks them.

    python -m vision_service.box.worker SOCKET MEMORY_BYTES MODULE ...

The nursery imports what tasks need, once, and forks a worker for every socket that it is sent: so
a worker costs milliseconds, and shares the libraries' memory with the others. A worker confines
itself and performs jobs until its socket closes. It knows nothing that is worth stealing, and a
parser that crashes, overruns its memory or does not come back ends its process alone.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from protos.wire.errors import ServiceError
from vision_service.box.task import HELLO, MAX_MESSAGE_BYTES, Given
from vision_service.jobs import error_to_plain

_MAX_TRACEBACK_CHARS = 8000
_OOM_SCORE = "1000"  # the kernel, out of memory, ends this process first


def main() -> None:
    """Forks workers until the replica is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the service
    nursery, memory_bytes = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    for module in sys.argv[3:]:
        importlib.import_module(module)
    gc.freeze()  # collecting would write to pages that workers share
    while True:
        message, descriptors, _, _ = socket.recv_fds(nursery, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                nursery.close()
                _work(connection, memory_bytes)
        _reap()


def _reap() -> None:
    """Takes note of workers that ended, so that the kernel forgets them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _work(connection: socket.socket, memory_bytes: int) -> NoReturn:
    """A forked worker's life; it must never return into the nursery's loop."""
    try:
        _confine(memory_bytes)
        # Sent before any file is seen: the replica can end this process with it, whatever becomes.
        socket.send_fds(connection, [HELLO], [os.pidfd_open(os.getpid())])
        while _serve_one(connection):
            # PyAV's files and decoders refer to each other: left to itself, Python would keep
            # megabytes of them, which count against the limit. The libraries are frozen above, so
            # this takes a millisecond, and the answer is away.
            gc.collect()
    finally:
        os._exit(0)


def _confine(memory_bytes: int) -> None:
    """Limits what is reserved from now on; libraries are loaded by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _serve_one(connection: socket.socket) -> bool:
    """Performs the next job; false when there is none any more."""
    message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
    if not message:
        return False
    request = json.loads(message)
    given = Given(arguments=request["arguments"], descriptor=descriptors[0])
    try:
        # Processor time, so that a busy machine makes no file a bad one. The signal's default
        # action ends the process: nothing has to be asked, and no orphan lives on.
        signal.setitimer(signal.ITIMER_PROF, request["limit_s"])
        reply = _perform(request["task"], given)
        signal.setitimer(signal.ITIMER_PROF, 0)
        kept = given.made if "values" in reply else []
        socket.send_fds(connection, [json.dumps(reply).encode()], [one.descriptor for one in kept])
    finally:
        given.close()
    return True


def _perform(task: str, given: Given) -> dict[str, Any]:
    module, _, name = task.partition(":")
    try:
        values = getattr(importlib.import_module(module), name)(given)
        for memory in given.made:
            memory.seal()
    except ServiceError as error:
        return error_to_plain(error)
    except MemoryError:
        return {"out_of_memory": True}
    except Exception:  # The box's edge: whatever a parser or a task raises is told outside.
        return {"traceback": traceback.format_exc()[-_MAX_TRACEBACK_CHARS:]}
    arrays = [{"shape": memory.shape, "dtype": memory.dtype} for memory in given.made]
    return {"values": values, "arrays": arrays}


if __name__ == "__main__":
    main()
