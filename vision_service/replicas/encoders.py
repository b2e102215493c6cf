"""Calls to the encoder replicas: where they run, one retry, and errors in our own words.

The gRPC front calls a `DeploymentHandle`; Serve's own proxies are off. Jobs, results and errors
cross as plain data (see jobs.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from protos.wire.errors import Overloaded, Reason, Unavailable
from vision_service.config import VisionConfig
from vision_service.jobs import Encoded, EncodeJob, error_from_plain
from vision_service.replicas import homes
from vision_service.replicas.ray_runtime import starting
from vision_service.replicas.reaper import Reaper

logger = logging.getLogger(__name__)

_ATTEMPTS = 2  # the first and one retry, on whatever replica is there by then

_REPLICA_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ObjectLostError,
)


class RayEncoders:
    """Encoder replicas of this process; `start` once, `stop` once."""

    def __init__(self, config: VisionConfig, reaper: Reaper) -> None:
        self._config = config
        self._ray, self._application = homes.home_of(config, reaper, self._take)
        self._handle: Any = None

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
        ray_s = time.perf_counter() - started_s
        logger.info("loading the vision tower into the replicas")
        with starting("the encoder replicas"):
            await self._application.start()
        total_s = time.perf_counter() - started_s
        logger.info("started: ray %.1f s, replicas %.1f s", ray_s, total_s - ray_s)

    async def stop(self) -> None:
        """Ends the replicas that are nobody else's, and every process of a Ray of our own."""
        self._handle = None
        await self._application.stop()
        await self._ray.stop()

    def _take(self, handle: Any) -> None:
        self._handle = handle

    async def lost(self) -> None:
        """Returns when Ray itself has died; the process must then end."""
        await self._ray.lost()

    async def encode(self, job: EncodeJob) -> Encoded:
        """Encodes one image on some replica; see `jobs.Encoders`.

        A replica that dies meanwhile costs one retry on another one, or on its successor.
        """
        plain = job.to_plain()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await self._call(plain)
            except _REPLICA_LOST:
                logger.warning("a replica died while encoding (attempt %d)", attempt)
                continue
            except BackPressureError as error:
                raise Overloaded(
                    f"{self._config.max_queued_requests} requests already wait for a replica",
                    retry_after_s=1.0,
                ) from error
            except DeploymentUnavailableError:
                break
            return self._to_encoded(answer)
        raise _unavailable()

    def _to_encoded(self, answer: dict[str, Any]) -> Encoded:
        if "error" not in answer:
            return Encoded.from_plain(answer)
        if "traceback" in answer:
            logger.error("unhandled error in a replica\n%s", answer["traceback"])
        raise error_from_plain(answer)

    async def _call(self, plain: dict[str, Any]) -> dict[str, Any]:
        if self._handle is None or self._ray.is_lost:
            raise _unavailable()
        response = self._handle.encode.remote(plain)
        answer = asyncio.ensure_future(_awaited(response))
        answer.add_done_callback(_look_at_outcome)
        lost = asyncio.ensure_future(self._ray.lost())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _unavailable()
            return answer.result()
        except asyncio.CancelledError:
            response.cancel()
            raise
        finally:
            lost.cancel()
            answer.cancel()


async def _awaited(response: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await response
    return answer


def _look_at_outcome(task: asyncio.Future[dict[str, Any]]) -> None:
    """Keeps asyncio from reporting the error of a call that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _unavailable() -> Unavailable:
    return Unavailable(
        "no encoder replica is there, try again",
        reason=Reason.VISION_UNAVAILABLE,
        retry_after_s=2.0,
    )
