"""This process as one of many on a Ray cluster that existed before it and goes on without it.

The host runs a node of the cluster; when that ends, Ray ends this process, too. While the head is
away, replicas go on serving and nothing scales.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TypeVar

import ray

from protos.machine.threads import apart
from vision_service.cluster.security import check_closed
from vision_service.config import VisionConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")

_REACH_S = 10.0
_SHUTDOWN_S = 10.0


class JoinedRay:
    """The connection to a cluster; `start` once, `stop` once."""

    def __init__(self, config: VisionConfig) -> None:
        self._config = config

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        """Joins the cluster.

        Args:
            reclaim_signals: Puts the process's signal handlers back, of which Ray takes some.

        Raises:
            SettingError: the cluster lets everybody in, and the settings do not allow that.
            ConnectionError: no cluster, or no node of it on this host.
        """
        config = self._config
        address = config.ray_address or "auto"
        await apart(lambda: join(address, config.ray_node_ip, config.allow_insecure))
        reclaim_signals()

    async def call(self, function: Callable[[], T]) -> T:
        """Runs something that waits for the cluster, in a thread."""
        return await apart(function)

    async def stop(self) -> None:
        """Leaves the cluster; does not wait for a head that is away."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(apart(ray.shutdown), _SHUTDOWN_S)

    @property
    def is_lost(self) -> bool:
        """Never: without a node on its host Ray ends the process."""
        return False

    async def lost(self) -> None:
        """Never returns."""
        await asyncio.Event().wait()


def join(address: str, node_ip: str | None, allow_insecure: bool) -> None:
    """Makes this process a driver of a cluster.

    Args:
        address: HOST:PORT of its head, or auto.
        node_ip: Address of this host's node, where several run on it.
        allow_insecure: See `check_closed`.

    Raises:
        SettingError: the cluster lets everybody in, and the settings do not allow that.
        ConnectionError: no cluster, or no node of it on this host.
    """
    address = resolved(address)
    reach(address)
    for name, level in (("ray", logging.WARNING), ("ray.serve", logging.ERROR)):
        adopt_logger(name, level)
    check_closed(address, allow_insecure=allow_insecure)
    ray.init(
        address=address, configure_logging=False, log_to_driver=False, _node_ip_address=node_ip
    )
    logger.info("joined the Ray cluster at %s", address)


def reach(address: str) -> None:
    """Fails at once where nobody listens; Ray itself would ask for minutes.

    Raises:
        ConnectionError: nobody does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no head of a Ray cluster answers at {address}") from error


def resolved(address: str) -> str:
    """HOST:PORT of the cluster's head, also for `auto`.

    Raises:
        ConnectionError: `auto`, and no Ray node runs on this host.
    """
    # NOTE: a private name; what it finds for `auto` is public only as what ray.init does.
    found = ray._private.services.canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("ray_address is auto, and no Ray node runs on this host")
    return str(found)


def adopt_logger(name: str, level: int) -> None:
    """Sends what Ray logs in this process to our own handler."""
    theirs = logging.getLogger(name)
    theirs.setLevel(level)
    theirs.propagate = True
    for handler in list(theirs.handlers):
        theirs.removeHandler(handler)
