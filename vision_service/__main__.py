"""`python -m vision_service`: sets what libraries read from the environment, then runs."""

import os
import secrets
import sys
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING

from vision_service.replicas import reaper

if TYPE_CHECKING:
    from vision_service.config import VisionConfig

# What Serve's controller and a replica import first. Ray's workers do so as soon as they run,
# beside each other and beside the driver, rather than one after the other when they are asked.
PRELOADED = (
    "ray.serve._private.controller",
    "ray.serve._private.replica",
    "vision_service.replicas.replica",
)

GRPC_ENVIRONMENT = {
    # gRPC's core would comment on a taken port, and on every process Ray starts beside our
    # server; the first is reported in our own words, the second is harmless.
    "GRPC_VERBOSITY": "NONE",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}

# What Serve reads in the process that calls replicas, on a Ray of our own and on a cluster.
CALLER = {
    # How long a replica may take to say how busy it is. Ray's 0.1 s is for idle cores; a replica
    # that computes on all of them would be taken for dead weight, and backed off from.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "2",
    "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "10",
    # Serve's threads go on asking after Ray has been shut down, and would start another one.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}

# Calls go through Ray's object stores, also where the operator chose gRPC for all of Serve: over
# gRPC a message may have 4 MB, and an image's patches and features have more.
LARGE_MESSAGES = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "0"}

# How long a cluster's head may be away before Ray ends this process: replicas serve without it.
HEAD_AWAY_S = 86_400


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    watching = reaper.start()  # before any library starts threads
    os.environ.update(GRPC_ENVIRONMENT)
    # Imported here because gRPC and Ray read the environment when they are imported.
    from protos.process.main import ServiceProcess, run
    from vision_service import app
    from vision_service.config import VisionConfig

    async def serve(config: VisionConfig, process: ServiceProcess) -> int:
        # Ray is imported by what comes now; it reads these when it is.
        os.environ.update(_ray_environment(config, os.environ))
        return await app.serve(config, process, reaper=watching)

    return run("vision_service", tier="vision", config_type=VisionConfig, serve=serve)


def _ray_environment(config: "VisionConfig", environ: Mapping[str, str]) -> dict[str, str]:
    """What Ray is told by its environment: all for a Ray of our own, little on a cluster.

    A cluster's token, certificates and limits are its operator's, who names them in `environ`.
    """
    if config.ray_address is None:
        return {**_private_environment(), **_startup_limits(config.startup_timeout_s)}
    ours = {**CALLER, "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_AWAY_S)}
    return {name: value for name, value in ours.items() if name not in environ} | LARGE_MESSAGES


def _startup_limits(seconds: float) -> dict[str, str]:
    """Makes Ray's processes wait for each other as long as the service may take to start.

    Ray's own limits (5 s to 60 s) are for cores that are idle.
    """
    whole = str(ceil(seconds))
    return {
        "RAY_gcs_server_port_wait_time_s": whole,
        "RAY_gcs_server_request_timeout_seconds": whole,
        "RAY_gcs_rpc_server_connect_timeout_s": whole,
        "RAY_py_gcs_connect_timeout_s": whole,
        "RAY_worker_register_timeout_seconds": whole,
        "RAY_agent_register_timeout_ms": str(ceil(seconds * 1000)),
    }


def _private_environment() -> dict[str, str]:
    """What a Ray of our own can be told by environment only.

    The token keeps every other process from using the ports Ray opens. All but the replicas'
    (Serve names no address for theirs) are open to this machine alone.
    """
    return {
        # Makes Ray take loopback for the address of this machine, and then bind to nothing else.
        # Meant for other systems, but asked everywhere. Naming 127.0.0.1 to ray.init would not
        # do: Ray replaces it by the machine's own address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_preload_python_modules": ",".join(PRELOADED),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # A replica that misses its health checks is ended at once; it would not end by itself, and
        # is given the time of the longest call otherwise. Read by Serve's controller.
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        **CALLER,
        **LARGE_MESSAGES,
    }


if __name__ == "__main__":
    sys.exit(main())
