"""The box: a small pool of workers in which clients' files are parsed.

A worker that a file ends is replaced, and the file gets one more try in another. A file that ends
that one too is refused from then on, by its digest, without another try. The replica itself never
looks into a file.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError
from vision_service.box.memory import SharedFile
from vision_service.box.process import Answer, BoxProcess, Nursery, WorkerDied, WorkerNotStarted
from vision_service.jobs import error_from_plain

logger = logging.getLogger(__name__)

_ATTEMPTS = 2
_MAX_REFUSED = 4096  # digests that are remembered, 32 bytes each
_GRACE_S = 0.5  # of a job that nobody waits for any more; ending its worker costs about as much
# What the kernel's own limit, in processor seconds, does not catch: a worker that waits.
_WALL_FACTOR = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to be parsed.

    Attributes:
        task: The function that does it, "module:function"; see task.py.
        file: What is parsed.
        arguments: For the task; JSON.
        limit_s: Processor seconds it may take.
        field: The file's name in errors.
        reason: Of the error when the file ends its workers.
    """

    task: str
    file: SharedFile
    arguments: Mapping[str, Any]
    limit_s: float
    field: str
    reason: Reason = Reason.INVALID_IMAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a task returned, and the arrays it made, read-only; their memory is freed with them."""

    values: dict[str, Any]
    arrays: list[npt.NDArray[Any]]


class ParserBox:
    """Workers that parse files, one at a time each; `close` it at the end.

    Args:
        workers: Processes at most; further ones are started when jobs wait.
        memory_bytes: What each may reserve beyond its libraries.
        modules: What each imports before it takes jobs.
    """

    def __init__(self, *, workers: int, memory_bytes: int, modules: Sequence[str]) -> None:
        self._nursery = Nursery(memory_bytes, modules)
        self._refused: OrderedDict[bytes, str] = OrderedDict()
        self._workers: set[BoxProcess] = set()
        # The last one that came back is the next to work; None has one forked.
        self._idle: asyncio.LifoQueue[BoxProcess | None] = asyncio.LifoQueue()
        for _ in range(workers):
            self._idle.put_nowait(None)

    async def run(self, job: Job) -> Result:
        """Does a job.

        Cancelling it gives the worker half a second to end the job, and ends the worker then.

        Raises:
            InvalidRequest: of the job's reason: the file ends its workers, or takes more time or
                memory than a job may.
            ServiceError: the task's own.
        """
        self._check(job)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await self._try(job)
            except WorkerDied as death:
                logger.warning("%s: a file %s (attempt %d)", job.task, death, attempt)
                cause = str(death)
                continue
            except WorkerNotStarted as error:
                raise InternalError("no parser could be started") from error
            return _result(job, *answer)
        self._refuse(job, cause)
        raise _invalid(job, cause)

    def close(self) -> None:
        """Ends all workers; jobs that they are at fail."""
        self._nursery.close()
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def _check(self, job: Job) -> None:
        # Asked first whether there are any, because a digest takes milliseconds.
        if self._refused and (cause := self._refused.get(job.file.digest)):
            self._refused.move_to_end(job.file.digest)
            raise _invalid(job, cause)

    def _refuse(self, job: Job, cause: str) -> None:
        self._refused[job.file.digest] = cause
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)

    async def _try(self, job: Job) -> Answer:
        worker = await self._take()
        try:
            worker.send(job.task, job.file, job.arguments, limit_s=job.limit_s)
        except WorkerDied:
            self._replace(worker)
            raise
        waiting = asyncio.create_task(self._answer(worker, job.limit_s))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_GRACE_S, waiting.cancel)
            raise

    async def _take(self) -> BoxProcess:
        """A worker that is ready for a job."""
        worker = await self._idle.get()
        try:
            if worker is None:
                worker = BoxProcess(self._nursery)
                self._workers.add(worker)
            await worker.ready()
        except asyncio.CancelledError:
            self._idle.put_nowait(worker)
            raise
        except WorkerNotStarted:
            self._replace(worker)
            raise
        return worker

    async def _answer(self, worker: BoxProcess, limit_s: float) -> Answer:
        try:
            answer = await worker.answer(limit_s=limit_s * _WALL_FACTOR)
        except BaseException:  # Cancelling included: a worker with an answer to come is unusable.
            self._replace(worker)
            raise
        self._idle.put_nowait(worker)
        return answer

    def _replace(self, worker: BoxProcess | None) -> None:
        """Ends a worker; its successor is forked when there is a job for it."""
        if worker is not None:
            self._workers.discard(worker)
            worker.close()
        self._idle.put_nowait(None)


def _result(job: Job, found: dict[str, Any], arrays: list[npt.NDArray[Any]]) -> Result:
    if "error" in found:
        raise _error(found)
    if "out_of_memory" in found:
        raise _invalid(job, "takes too much memory to decode")
    if "values" not in found:
        logger.error("%s failed\n%s", job.task, found.get("traceback"))
        raise InternalError("internal error")
    return Result(values=found["values"], arrays=arrays)


def _error(found: dict[str, Any]) -> ServiceError:
    try:
        return error_from_plain(found)
    except (ValueError, TypeError, KeyError):  # said by whoever took the worker over
        return InternalError("internal error")


def _invalid(job: Job, cause: str) -> InvalidRequest:
    return InvalidRequest(f"{job.field} {cause}", reason=job.reason, param=job.field)
