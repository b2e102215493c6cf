"""The encoder replicas on Ray Serve; the only module that knows Ray.

The gRPC front calls a `DeploymentHandle`; Serve's own proxies are off. Jobs, results and errors
cross as plain data (see jobs.py). Ray runs for this process alone: private temporary folder,
private token, no dashboard, no usage statistics, gone when this process is gone.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from protos.bundle.manifest import BundleError
from protos.process import processes
from protos.process.settings import SettingError
from protos.wire.channels import MIB
from protos.wire.errors import Overloaded, Reason, Unavailable
from vision_service.config import VisionConfig
from vision_service.jobs import Encoded, EncodeJob, error_from_plain
from vision_service.replicas.reaper import Belongings, Reaper

logger = logging.getLogger(__name__)

_ATTEMPTS = 2  # the first and one retry, on whatever replica is there by then
_WATCH_INTERVAL_S = 1.0
_SHUTDOWN_S = 10.0
_CORE_PROCESSES = ("gcs_server", "raylet")
_SOCKET_PATH_ROOM = 40  # longest temporary folder below which Ray's socket paths stay legal

_REPLICA_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ObjectLostError,
)


class _Deployment:
    """What Serve runs in each replica's process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        # Imported here so that torch stays out of the front's process.
        from vision_service.replicas.replica import Replica, ReplicaSettings

        self._replica: Replica | None = None
        self._problem: str | None = None
        try:
            self._replica = Replica.load(ReplicaSettings(**settings))
        except BundleError as error:  # Serve would retry and bury the one clear line
            self._problem = str(error)

    async def problem(self) -> str | None:
        """Why the bundle could not be loaded."""
        return self._problem

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """See Replica.encode."""
        if self._replica is None:
            raise RuntimeError(self._problem)
        return await self._replica.encode(plain)


class RayEncoders:
    """Encoder replicas of this process; `start` once, `stop` once."""

    def __init__(self, config: VisionConfig, reaper: Reaper) -> None:
        self._config = config
        self._reaper = reaper
        # NOTE: Linux kills Ray's processes when the *thread* that started them ends, so this
        # thread must live as long as they do.
        self._ray_thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._folder = _temporary_folder()
        self._handle: Any = None
        self._core: dict[int, int] = {}
        self._lost = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Starts Ray and the replicas; returns when all are ready.

        Args:
            reclaim_signals: Puts the process's signal handlers back. Ray's own, which it
                installs while it starts, would abort the process 3 s after a SIGTERM.

        Raises:
            BundleError: the replicas could not load the bundle.
            SettingError: there are fewer GPUs than replicas.
        """
        loop = asyncio.get_running_loop()
        started_s = time.perf_counter()
        await loop.run_in_executor(self._ray_thread, self._start_ray)
        reclaim_signals()
        self._watcher = asyncio.create_task(self._watch())
        ray_s = time.perf_counter() - started_s
        self._handle = await loop.run_in_executor(self._ray_thread, self._start_replicas)
        total_s = time.perf_counter() - started_s
        logger.info("started: ray %.1f s, replicas %.1f s", ray_s, total_s - ray_s)
        problem = await self._handle.problem.remote()
        if problem is not None:
            raise BundleError(problem)

    async def stop(self) -> None:
        """Ends the replicas and every process of Ray."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._handle = None
        loop = asyncio.get_running_loop()
        started = {**self._below(), **self._core}
        shutdown = loop.run_in_executor(self._ray_thread, ray.shutdown)
        done, _ = await asyncio.wait({shutdown}, timeout=_SHUTDOWN_S)
        killed = await asyncio.to_thread(processes.end, started, grace_s=2.0 if done else 0.0)
        if killed:
            logger.debug("killed %d processes of Ray that stayed", len(killed))
        self._ray_thread.shutdown(wait=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def lost(self) -> None:
        """Returns when Ray itself has died; the process must then end."""
        await self._lost.wait()

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
        if self._handle is None or self._lost.is_set():
            raise _unavailable()
        response = self._handle.encode.remote(plain)
        answer = asyncio.ensure_future(_awaited(response))
        answer.add_done_callback(_look_at_outcome)
        lost = asyncio.ensure_future(self._lost.wait())
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

    async def _watch(self) -> None:
        """Polls, because Ray tells nobody of its processes."""
        known: dict[int, int] = {}
        while not self._lost.is_set():
            below = await asyncio.to_thread(self._below)
            if below != known:
                self._reaper.tell(Belongings(started=below, folder=self._folder))
                known = below
            if not self._core.items() <= below.items():
                logger.error("Ray's own processes died")
                self._lost.set()
            await asyncio.sleep(_WATCH_INTERVAL_S)

    def _below(self) -> dict[int, int]:
        """Start times of all processes below this one but the reaper."""
        pids = [pid for pid in processes.descendants(os.getpid()) if pid != self._reaper.pid]
        return {pid: since for pid in pids if (since := processes.start_time(pid)) is not None}

    def _start_ray(self) -> None:
        config = self._config
        _adopt_logger("ray", logging.WARNING)
        _adopt_logger("ray.serve", logging.ERROR)  # it warns about every probe of a busy replica
        ray.init(
            address="local",
            num_cpus=config.most_replicas,  # idle workers started beforehand
            num_gpus=None if config.device == "cuda" else 0,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            object_store_memory=config.object_store_mib * MIB,
            _temp_dir=self._folder,
        )
        self._core = {
            pid: since
            for pid, since in self._below().items()
            if processes.name(pid) in _CORE_PROCESSES
        }
        gpus, wanted = int(ray.cluster_resources().get("GPU", 0)), self._config.most_replicas
        if config.device == "cuda" and gpus < wanted:
            # Serve would wait for them for ever.
            raise SettingError(f"device is cuda: {wanted} replicas need a GPU each, {gpus} found")

    def _start_replicas(self) -> Any:
        config = self._config
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = serve.deployment(_Deployment).options(**_deployment_options(config))
        settings = config.replica_settings(cores=len(os.sched_getaffinity(0)))
        return serve.run(
            deployment.bind(settings), name="vision", route_prefix=None, logging_config=quiet
        )


def _adopt_logger(name: str, level: int) -> None:
    """Sends what Ray logs in this process to our own handler."""
    theirs = logging.getLogger(name)
    theirs.setLevel(level)
    theirs.propagate = True
    for handler in list(theirs.handlers):
        theirs.removeHandler(handler)


def _deployment_options(config: VisionConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": "encoder",
        # Replicas share the cores by their thread counts, not by Ray's bookkeeping.
        "ray_actor_options": {"num_cpus": 0, "num_gpus": 1 if config.device == "cuda" else 0},
        "max_ongoing_requests": 32,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": 1.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": 5.0,
    }
    if config.max_replicas is None:
        options["num_replicas"] = config.replicas
    else:
        options["autoscaling_config"] = {
            "min_replicas": config.replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": 4,
            "upscale_delay_s": 5.0,
            "downscale_delay_s": 60.0,
        }
    return options


def _temporary_folder() -> str:
    base = tempfile.gettempdir()
    if len(base) > _SOCKET_PATH_ROOM:
        base = "/tmp"
    return tempfile.mkdtemp(prefix="tandem-vision-", dir=base)


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
