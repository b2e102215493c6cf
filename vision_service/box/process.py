"""Boxed workers as the replica sees them: processes, each with one job at a time."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from vision_service.box.memory import SharedFile, open_array
from vision_service.box.task import HELLO, MAX_ARRAYS, MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)

_START_S = 60.0  # imports, on a machine that is busy with other things
_RECEIVING = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_ENDED = "cannot be decoded: its parser crashes, or takes too long"
_SECRETS = "RAY_"  # Ray's token is not for whoever takes over a parser

Answer = tuple[dict[str, Any], list[npt.NDArray[Any]]]  # what the worker said; its arrays


class WorkerDied(Exception):
    """The worker is gone, or was ended; the text continues a sentence that begins with a field."""


class WorkerNotStarted(Exception):
    """No worker could be started, whatever it was to do."""


class Nursery:
    """The process that forks workers; started at once, and again when it is gone.

    Args:
        memory_bytes: What each worker may reserve beyond what its libraries took.
        modules: What is imported before the first is forked.

    Raises:
        WorkerNotStarted: the system starts no process now.
    """

    def __init__(self, memory_bytes: int, modules: Sequence[str]) -> None:
        self._arguments = (str(memory_bytes), *modules)
        self._start()

    def fork(self, connection: socket.socket) -> None:
        """Lets a worker be forked that serves a socket.

        Raises:
            WorkerNotStarted: it can not be.
        """
        try:
            socket.send_fds(self._socket, [b"f"], [connection.fileno()])
        except OSError:
            logger.warning("the parsers' nursery is gone, starting another one")
            self.close()
            self._start()
            try:
                socket.send_fds(self._socket, [b"f"], [connection.fileno()])
            except OSError as error:
                raise WorkerNotStarted from error

    def close(self) -> None:
        """Ends the nursery; workers live on."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = ("-P", "-m", "vision_service.box.worker", str(theirs.fileno()))
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *command, *self._arguments],
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                self._socket.close()
                raise WorkerNotStarted from error


class BoxProcess:
    """One worker; `close` it at the end.

    Raises:
        WorkerNotStarted: none can be forked now.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: int | None = None  # a descriptor of it, once it is ready
        with theirs:
            try:
                nursery.fork(theirs)
            except WorkerNotStarted:
                self._socket.close()
                raise

    async def ready(self) -> None:
        """Returns when it takes jobs.

        Raises:
            WorkerNotStarted: it ended before.
        """
        if self._process is not None:
            return
        try:
            message, descriptors = await self._receive(_START_S)
        except WorkerDied as error:
            raise WorkerNotStarted from error
        assert message == HELLO, "no file was seen yet"
        (self._process,) = descriptors

    def send(
        self, task: str, file: SharedFile, arguments: Mapping[str, Any], *, limit_s: float
    ) -> None:
        """Hands over a job; the file may be freed afterwards.

        Args:
            task: "module:function", see task.py.
            file: What is parsed.
            arguments: For the task; JSON.
            limit_s: Processor seconds after which the worker ends itself.

        Raises:
            WorkerDied: it is gone.
        """
        request = {"task": task, "arguments": dict(arguments), "limit_s": limit_s}
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [file.descriptor])
        except OSError as error:
            raise WorkerDied(_ENDED) from error

    async def answer(self, *, limit_s: float) -> Answer:
        """What came of the job handed over last.

        Args:
            limit_s: Seconds after which the worker is ended.

        Raises:
            WorkerDied: it ended, was too slow, or answered what no worker of ours would.
        """
        message, descriptors = await self._receive(limit_s)
        try:
            found: dict[str, Any] = json.loads(message)
            arrays = [
                open_array(descriptor, made["shape"], made["dtype"])
                for descriptor, made in zip(descriptors, found.get("arrays", ()), strict=True)
            ]
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            # Whoever took the worker over may say anything.
            raise WorkerDied("cannot be decoded: its parser answers nonsense") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return found, arrays

    async def _receive(self, limit_s: float) -> tuple[bytes, list[int]]:
        try:
            async with asyncio.timeout(limit_s):
                await _readable(self._socket)
            message, descriptors, _, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE_BYTES, MAX_ARRAYS, _RECEIVING
            )
        except TimeoutError as error:
            raise WorkerDied(f"was not decoded within {limit_s:g} s") from error
        except ConnectionError:
            message, descriptors = b"", []
        if not message:
            raise WorkerDied(_ENDED)
        return message, descriptors

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = None


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(connection, note)
    try:
        await readable
    finally:
        loop.remove_reader(connection)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # A replica's modules are found where its parent found them.
    return {**kept, **one, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
