"""Calls to the encoder replicas: where they run, one retry, and errors in our own words.

The gRPC front calls a `DeploymentHandle`; Serve's own proxies are off. Jobs, results and errors
cross as plain data (see jobs.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from math import ceil
from typing import Any

import ray
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from protos.wire.errors import Overloaded, Reason, Unavailable
from vision_service.config import VisionConfig
from vision_service.jobs import Encoded, EncodeJob, Patches, error_from_plain
from vision_service.replicas import homes
from vision_service.replicas.ray_runtime import starting
from vision_service.replicas.reaper import Reaper
from vision_service.routing.desk import DESK, Ticket, Verdict
from vision_service.routing.fatal import FatalImages
from vision_service.routing.plain_calls import use_plain_calls
from vision_service.routing.wire import TICKET
from vision_service.scaling.cost import USUAL, Work

logger = logging.getLogger(__name__)

_ATTEMPTS = 2  # the first and one retry, on whatever replica is there by then
_HANDLE_STOP_S = 2.0
_LOOK_S = 0.2  # between two looks whether a call still has a chance

_REPLICA_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ObjectLostError,
)


class _ReplicaLeft(Exception):
    """A replica has ended in peace, and the image came too late for it."""


class _ReplicaHung(Exception):
    """A replica has not answered in the time that its image should have taken."""


class RayEncoders:
    """Encoder replicas of this process; `start` once, `stop` once."""

    def __init__(self, config: VisionConfig, reaper: Reaper) -> None:
        self._config = config
        self._ray, self._application = homes.home_of(config, reaper, self._take)
        self._handle: Any = None
        self._fatal = FatalImages()
        self._replica_start_s = 1.0

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Starts or joins Ray, and the replicas; returns when they are ready.

        Args:
            reclaim_signals: See `RayRuntime.start`.

        Raises:
            BundleError: the replicas could not load the bundle.
            SettingError: there are fewer GPUs than replicas, or a cluster lets everybody in.
            EncodersNotStarted: Ray or the replicas did not start.
        """
        started_s = time.perf_counter()
        logger.info("starting Ray")
        with starting("Ray"):
            await self._ray.start(reclaim_signals=reclaim_signals)
            use_plain_calls()
        ray_s = time.perf_counter() - started_s
        logger.info("loading the vision tower into the replicas")
        with starting("the encoder replicas"):
            await self._application.start()
        total_s = time.perf_counter() - started_s
        self._replica_start_s = total_s - ray_s
        logger.info("started: ray %.1f s, replicas %.1f s", ray_s, total_s - ray_s)

    async def stop(self) -> None:
        """Ends the replicas that are nobody else's, and every process of a Ray of our own."""
        handle, self._handle = self._handle, None
        if handle is not None:
            # Its threads would go on reporting to a Ray that is no more.
            quiet = asyncio.ensure_future(handle.shutdown_async())
            quiet.add_done_callback(_look_at_outcome)
            await asyncio.wait({quiet}, timeout=_HANDLE_STOP_S)
        await self._application.stop()
        await self._ray.stop()

    def _take(self, handle: Any) -> None:
        self._handle = handle

    async def lost(self) -> None:
        """Returns when Ray itself has died; the process must then end."""
        await self._ray.lost()

    async def encode(self, job: EncodeJob) -> Encoded:
        """Encodes one image on some replica; see `jobs.Encoders`.

        A replica that dies, hangs or leaves meanwhile costs one retry, on another one or on its
        successor.
        """
        self._fatal.check(job)
        failed: list[str] = []
        for attempt in range(1, _ATTEMPTS + 1):
            ticket = DESK.open(_work(job), avoid=failed)
            try:
                answer = await self._call(job, ticket)
            except _REPLICA_LOST:
                logger.warning("a replica died while encoding (attempt %d)", attempt)
                self._fatal.died(job, ticket.replica or "")
            except _ReplicaLeft:
                logger.warning("a replica left without encoding (attempt %d)", attempt)
            except _ReplicaHung:
                logger.warning("a replica does not answer (attempt %d)", attempt)
            except BackPressureError as error:
                raise Overloaded(
                    f"{self._config.max_queued_requests} requests already wait for a replica",
                    retry_after_s=1.0,
                ) from error
            except DeploymentUnavailableError:
                break
            else:
                self._fatal.survived(job)
                return self._to_encoded(answer)
            finally:
                DESK.close(ticket)
            failed += [ticket.replica] if ticket.replica else []
        self._fatal.check(job)
        raise self._unavailable()

    def _to_encoded(self, answer: dict[str, Any]) -> Encoded:
        if "error" not in answer:
            return Encoded.from_plain(answer)
        if "traceback" in answer:
            logger.error("unhandled error in a replica\n%s", answer["traceback"])
        raise error_from_plain(answer)

    async def _call(self, job: EncodeJob, ticket: Ticket) -> dict[str, Any]:
        if self._handle is None or self._ray.is_lost:
            raise self._unavailable()
        response = self._handle.encode.remote(
            {**job.to_plain(), TICKET: (DESK.front, ticket.number)}
        )
        answer = asyncio.ensure_future(_awaited(response))
        answer.add_done_callback(_look_at_outcome)
        try:
            await self._answered(answer, ticket)
            # NOTE: what a replica has not done when it ends, Ray cancels there; who is cancelled
            # here does not get past the line above.
            if answer.cancelled():
                raise _ReplicaLeft
            return answer.result()
        finally:
            if not answer.done():
                response.cancel()
            answer.cancel()

    async def _answered(self, answer: asyncio.Future[dict[str, Any]], ticket: Ticket) -> None:
        """Returns when a call has ended.

        Raises:
            Unavailable, _ReplicaHung: there is no use in waiting for it any longer.
        """
        # One timer in place of a task that looks: most calls end before the first look.
        while not (await asyncio.wait({answer}, timeout=_LOOK_S))[0]:
            if self._ray.is_lost:
                raise self._unavailable()
            verdict = DESK.verdict(ticket, tier_wait_s=self._config.longest_tier_wait_s)
            if verdict is Verdict.HUNG:
                raise _ReplicaHung
            if verdict is Verdict.ABSENT:
                raise self._unavailable()

    def _unavailable(self) -> Unavailable:
        return Unavailable(
            "no encoder replica is there, try again",
            reason=Reason.VISION_UNAVAILABLE,
            retry_after_s=float(ceil(self._replica_start_s)),
        )


async def _awaited(response: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await response
    return answer


def _look_at_outcome(task: asyncio.Future[Any]) -> None:
    """Keeps asyncio from reporting the error of a call that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _work(job: EncodeJob) -> Work:
    """What a job costs; that of a usual image where only the image itself says how large it is."""
    source = job.source
    grid = source.grid if isinstance(source, Patches) else source.expected_grid
    return USUAL if grid is None else Work.of(grid)
