"""`tandem vision-drain`: takes this host's Ray node off its cluster without losing work.

The node gets no new work from then on. Its replicas are replaced on other hosts where those have
room, finish what they have, and end; a node without work ends by itself. What Ray calls a deadline
ends nothing: Serve counts back from it when replicas shall wait for their successors no longer.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2, gcs_pb2

from protos.process import logs, settings
from protos.process.settings import LOG_LEVELS, SettingError, check, setting
from vision_service.cluster.joined import reach, resolved
from vision_service.cluster.security import check_closed

PROGRAM = "tandem vision-drain"
EXIT_BAD_SETTING, EXIT_STILL_THERE = 2, 1

_POLL_S = 0.5
_END_S = 30.0  # beyond all work, for the node itself


class NotDrained(Exception):
    """Ray did not take the request, or the node still runs; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainConfig:
    """Which node, and how long; the names are those of the vision service's settings."""

    ray_address: str = setting("HOST:PORT of a cluster's head, or auto", default="auto")
    ray_node_ip: str | None = setting(
        "address of this host's Ray node; unset: that of this host", default=None
    )
    wait_s: float = setting(
        "longest that replicas wait for successors on other hosts, s", default=60.0, least=0
    )
    encode_timeout_s: float = setting("that of the fronts, s", default=300.0, above=0)
    allow_insecure: bool = setting("ask a cluster that lets everybody in", default=False)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="WARNING", choices=LOG_LEVELS)

    def __post_init__(self) -> None:
        check(self)


def drain(client: Any, address: str, *, wait_s: float, encode_timeout_s: float) -> str:
    """Drains the node of an address and returns its id at once.

    Args:
        client: Ray's GcsClient.
        address: Of the node, as Ray knows it.
        wait_s: How long replicas may wait for successors.
        encode_timeout_s: What Serve gives a replica to finish in.

    Raises:
        NotDrained: no worker node has that address, or the head refused.
    """
    node_id = _node_at(client.get_all_node_info(), address)
    # NOTE: a time of day, of this host, that Serve holds against its own: clocks that differ make
    # replicas wait longer or shorter for successors, and nothing else.
    deadline_ms = int((time.time() + wait_s + encode_timeout_s) * 1e3)
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, refusal = client.drain_node(node_id, reason, PROGRAM, deadline_ms)
    if not accepted:
        raise NotDrained(f"Ray does not drain the node at {address}: {refusal}")
    return node_id


def wait_until_gone(
    client: Any,
    node_id: str,
    *,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when a node has left its cluster.

    Raises:
        NotDrained: it had not when `limit_s` was over.
    """
    until_s = clock() + limit_s
    while node_id in _alive(client.get_all_node_info()):
        if clock() > until_s:
            raise NotDrained(
                f"work of others keeps the node after {limit_s:.0f} s; it takes no more, and"
                " `ray stop` ends it"
            )
        pause(_POLL_S)


def _node_at(nodes: Mapping[Any, Any], address: str) -> str:
    there = {i: one for i, one in _alive(nodes).items() if one.node_manager_address == address}
    if len(there) != 1:
        raise NotDrained(f"{len(there)} Ray nodes have the address {address}, expected one")
    [(node_id, node)] = there.items()
    if node.is_head_node:
        raise NotDrained(
            f"the node at {address} is the cluster's head, which is not drained; `ray stop` ends it"
        )
    return node_id


def _alive(nodes: Mapping[Any, Any]) -> dict[str, Any]:
    return {i.hex(): one for i, one in nodes.items() if one.state == gcs_pb2.GcsNodeInfo.ALIVE}


def main() -> int:
    """Drains, waits and tells; returns the exit code."""
    names = {f"VISION_{field.name.upper()}" for field in fields(DrainConfig)}
    try:
        config = settings.load(
            DrainConfig,
            program=PROGRAM,
            prefix="VISION",
            argv=sys.argv[1:],
            environ={name: text for name, text in os.environ.items() if name in names},
        )
        logs.configure(config.log_level)
        head = resolved(config.ray_address)
        reach(head)
        check_closed(head, allow_insecure=config.allow_insecure)
    except (SettingError, ConnectionError) as error:
        sys.stderr.write(f"{PROGRAM}: {str(error).splitlines()[0]}\n")
        return EXIT_BAD_SETTING
    return _leave(config, head)


def _leave(config: DrainConfig, head: str) -> int:
    # NOTE: a private name, as in fronts.py. A driver would end with the node; this asks the head.
    client = ray._raylet.GcsClient(address=head)
    address = config.ray_node_ip or ray.util.get_node_ip_address()
    work_s = config.wait_s + config.encode_timeout_s
    try:
        node_id = drain(
            client, address, wait_s=config.wait_s, encode_timeout_s=config.encode_timeout_s
        )
        sys.stdout.write(f"the Ray node at {address} takes no more work\n")
        sys.stdout.flush()
        wait_until_gone(client, node_id, limit_s=work_s + _END_S)
    except NotDrained as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return EXIT_STILL_THERE
    sys.stdout.write(f"the Ray node at {address} has left the cluster\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
