"""Ray's life in this process: started, watched, and gone with every process it made.

Ray runs for this process alone: private temporary folder, private token, no dashboard, no usage
statistics, gone when this process is gone.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import ray

from protos.bundle.manifest import BundleError
from protos.machine import processes
from protos.process.settings import SettingError
from protos.wire.channels import MIB
from vision_service.cluster.joined import adopt_logger
from vision_service.config import VisionConfig
from vision_service.jobs import EncodersNotStarted
from vision_service.replicas.lean_node import lean_node
from vision_service.replicas.reaper import Belongings, Reaper

logger = logging.getLogger(__name__)

T = TypeVar("T")

ADDRESS = "local"  # a Ray of our own; never one that happens to run on this machine

_WATCH_INTERVAL_S = 1.0
_SHUTDOWN_S = 10.0
_NODE_POLL_S = 0.2
_CORE_PROCESSES = ("gcs_server", "raylet")
_SOCKET_PATH_ROOM = 40  # longest temporary folder below which Ray's socket paths stay legal


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Turns what Ray raises while it starts something into one line; the log has all at DEBUG.

    Raises:
        EncodersNotStarted: Ray raised.
    """
    try:
        yield
    except (SettingError, BundleError):
        raise
    except Exception as error:
        # The border to Ray, which raises bare `Exception`s itself (a node that is late), beside
        # RuntimeError, ValueError, OSError and two families of its own.
        logger.debug("%s did not start", what, exc_info=True)
        first = next(iter(str(error).strip().splitlines()), "no reason given")
        raise EncodersNotStarted(
            f"{what} did not start: {type(error).__name__}: {first}"
        ) from error


class RayRuntime:
    """Ray of this process; `start` once, `stop` once."""

    def __init__(self, config: VisionConfig, reaper: Reaper) -> None:
        self._config = config
        self._reaper = reaper
        # NOTE: Linux kills Ray's processes when the *thread* that started them ends, so this
        # thread must live as long as they do.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._folder = _temporary_folder()
        self._core: dict[int, int] = {}
        self._lost = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Starts Ray and watches it from then on.

        Args:
            reclaim_signals: Puts the process's signal handlers back. Ray's own, which it
                installs while it starts, would abort the process 3 s after a SIGTERM.

        Raises:
            SettingError: there are fewer GPUs than replicas.
        """
        await self.call(self._start)
        reclaim_signals()
        self._watcher = asyncio.create_task(self._watch())

    async def call(self, function: Callable[[], T]) -> T:
        """Runs something that makes Ray start processes, in the thread they depend on."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def stop(self) -> None:
        """Ends every process of Ray."""
        if self._watcher is not None:
            self._watcher.cancel()
        started = {**self._below(), **self._core}
        shutdown = asyncio.ensure_future(self.call(ray.shutdown))
        done, _ = await asyncio.wait({shutdown}, timeout=_SHUTDOWN_S)
        killed = await asyncio.to_thread(processes.end, started, grace_s=2.0 if done else 0.0)
        if killed:
            logger.debug("killed %d processes of Ray that stayed", len(killed))
        self._thread.shutdown(wait=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_lost(self) -> bool:
        """Whether Ray itself has died."""
        return self._lost.is_set()

    async def lost(self) -> None:
        """Returns when Ray itself has died; the process must then end."""
        await self._lost.wait()

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

    def _start(self) -> None:
        config = self._config
        adopt_logger("ray", logging.WARNING)
        adopt_logger("ray.serve", logging.ERROR)  # it warns about every probe of a busy replica
        with lean_node(), patient(config.startup_timeout_s):
            ray.init(
                address=ADDRESS,
                # So many workers are started beforehand: the replicas and Serve's controller.
                num_cpus=config.most_replicas + 1,
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
        gpus, wanted = ray.cluster_resources().get("GPU", 0), config.most_replicas * config.gpus
        if gpus < wanted:  # Serve would wait for them for ever
            raise SettingError(
                f"device is cuda: {config.most_replicas} replicas need {wanted:g} GPUs,"
                f" {gpus:g} found"
            )


@contextmanager
def patient(timeout_s: float) -> Iterator[None]:
    """Lets Ray wait for its node as long as we do.

    Ray asks for the node until 30 s have passed, a number in the middle of its code; cores that
    are busy with another model's start make that too short. Asking goes on here, within one
    question of Ray's, as long as the node's process lives.

    NOTE: a private name of the release that pyproject.toml pins, as in lean_node.py. What
    Ray can be told in public is in vision_service/__main__.py.
    """
    services = ray._private.services
    ask = services.get_node
    deadline = time.monotonic() + timeout_s

    def ask_on(*arguments: Any) -> Any:
        while True:
            try:
                return ask(*arguments)
            except RuntimeError:  # what Ray raises where the node is not known yet
                if time.monotonic() >= deadline or not _node_lives():
                    raise
                time.sleep(_NODE_POLL_S)

    services.get_node = ask_on
    try:
        yield
    finally:
        services.get_node = ask


def _node_lives() -> bool:
    return any(processes.name(pid) == "raylet" for pid in processes.descendants(os.getpid()))


def _temporary_folder() -> str:
    base = tempfile.gettempdir()
    if len(base) > _SOCKET_PATH_ROOM:
        base = "/tmp"
    return tempfile.mkdtemp(prefix="tandem-vision-", dir=base)
