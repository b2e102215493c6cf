"""Where this process's encoders live: on a Ray of its own, or on a cluster that it joins."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from protos.bundle.manifest import Bundle, BundleError
from vision_service.cluster.application import Application
from vision_service.cluster.joined import JoinedRay
from vision_service.cluster.shared import SharedApplication
from vision_service.config import VisionConfig
from vision_service.replicas.applications import (
    placement,
    private_application,
    shared_application,
)
from vision_service.replicas.ray_runtime import RayRuntime
from vision_service.replicas.reaper import Reaper

OnHandle = Callable[[Any], None]


class Runtime(Protocol):
    """Ray as the encoders see it."""

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Starts or joins it; `reclaim_signals` puts the process's signal handlers back."""

    async def stop(self) -> None:
        """Ends or leaves it."""

    @property
    def is_lost(self) -> bool:
        """Whether it has died."""

    async def lost(self) -> None:
        """Returns when it has died; the process must then end."""


class Tenancy(Protocol):
    """An application on that Ray; `start` gives its handle to whom `home_of` was told."""

    async def start(self) -> None:
        """Returns when a replica answers."""

    async def stop(self) -> None:
        """Ends what is this process's alone."""


class PrivateApplication:
    """An application that goes with the Ray of this process."""

    def __init__(self, runtime: RayRuntime, application: Application, on_handle: OnHandle) -> None:
        self._runtime = runtime
        self._application = application
        self._on_handle = on_handle

    async def start(self) -> None:
        """Starts the replicas; returns when all are ready.

        Raises:
            BundleError: the replicas could not load the bundle.
            NoReplicaStarted: Serve has given up.
        """
        handle = await self._runtime.call(self._run)
        problem = await handle.problem.remote()
        if problem is not None:
            raise BundleError(problem)
        self._on_handle(handle)

    async def stop(self) -> None:
        """Nothing: every process of Ray ends with this one."""

    def _run(self) -> Any:
        handle = self._application.run()
        self._application.wait()
        return handle


class Home(NamedTuple):
    """Ray, and the application on it."""

    runtime: Runtime
    tenancy: Tenancy


def home_of(config: VisionConfig, reaper: Reaper, on_handle: OnHandle) -> Home:
    """What the settings ask for.

    Args:
        config: The settings.
        reaper: Ends a Ray of our own when this process is killed.
        on_handle: Called with the application's handle, again where it had to be brought again.

    Raises:
        BundleError: the bundle cannot be opened, whose digest a shared application carries.
    """
    cores = len(os.sched_getaffinity(0))
    if config.ray_address is None:
        runtime = RayRuntime(config, reaper)
        application = private_application(config, cores=cores)
        return Home(runtime, PrivateApplication(runtime, application, on_handle))
    digest = Bundle.open(config.bundle).digest
    application = shared_application(config, digest, cores=cores)
    shared = SharedApplication(
        application,
        placement(config, digest, application),
        keep=config.keep_replicas,
        on_handle=on_handle,
    )
    return Home(JoinedRay(config), shared)
