"""The vision tier in one process, for stacks whose test is not about Ray.

Ray, Serve's controller and a replica's process take seconds to start. Here the tier's own front,
server and replica run as ever, and jobs and results cross between them as the same plain data;
only what carries them is left out. `python vision_without_ray.py FLAGS`, the tier's own flags.
"""

import asyncio
import os
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from protos.process.main import ServiceProcess, run
from vision_service.config import VisionConfig
from vision_service.jobs import Encoded, EncodeJob, error_from_plain
from vision_service.replicas import reaper
from vision_service.replicas.replica import Replica, ReplicaSettings


class EncodersHere:
    """One replica in this process, with the methods of `RayEncoders`."""

    def __init__(self, config: VisionConfig, _: reaper.Reaper) -> None:
        settings = config.replica_settings(cores=len(os.sched_getaffinity(0)))
        self._settings = ReplicaSettings(**settings)
        self._replica: Replica | None = None

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Loads the tower."""
        self._replica = await asyncio.to_thread(Replica.load, self._settings)

    async def stop(self) -> None:
        """Ends with the process."""

    async def lost(self) -> None:
        """Never returns: there is no Ray to lose."""
        await asyncio.Event().wait()

    async def encode(self, job: EncodeJob) -> Encoded:
        """See `jobs.Encoders`."""
        assert self._replica is not None
        answer = copied(await self._replica.encode(copied(job.to_plain())))
        if "error" in answer:
            raise error_from_plain(answer)
        return Encoded.from_plain(answer)


def copied(plain: dict[str, Any]) -> dict[str, Any]:
    """As it would arrive in another process."""
    crossed: dict[str, Any] = pickle.loads(pickle.dumps(plain))
    return crossed


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    watching = reaper.start()
    # `app` imports the encoders when it needs them, and Ray would come with the real ones.
    module = ModuleType("vision_service.replicas.encoders")
    module.__dict__["RayEncoders"] = EncodersHere
    sys.modules[module.__name__] = module
    from vision_service import app

    async def serve(config: VisionConfig, process: ServiceProcess) -> int:
        return await app.serve(config, process, reaper=watching)

    return run("vision_service", tier="vision", config_type=VisionConfig, serve=serve)


if __name__ == "__main__":
    sys.exit(main())
