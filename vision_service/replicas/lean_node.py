"""Ray's node without the Python processes that nobody would ask.

A node is two programs, `gcs_server` and `raylet`, and five Python processes beside them that serve
clusters: what scales them, what shows them, what collects their logs and figures, what installs
packages for jobs. The private Ray of one machine has no use for these, and they cost most of its
start: 8 s of 15 on two busy cores.

NOTE: Ray has public options for two of them in `ray start` alone. The names used here are private
ones of the release that pyproject.toml pins; tests/e2e/test_vision_service.py notices when a
process comes back, tests/unit/vision_service/replicas/test_lean_node.py when a name changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

# The cluster autoscaler's monitor, the monitor that sends log files to the driver, and what is left
# of the dashboard without one: these are never started.
_WATCHER_STARTERS = ("start_monitor", "start_log_monitor", "start_api_server")

# The two agents, by the option that gives the raylet their command lines. The raylet insists on
# them: it waits until each has written down its ports, and ends when one of them does.
_AGENTS = {
    "--dashboard_agent_command": (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
    ),
    "--runtime_env_agent_command": ("runtime_env_agent_port",),
}
_STAND_IN = "sleep infinity"
_NOBODYS_PORT = "1"  # nothing listens there: what is sent to an agent is refused at once


@contextmanager
def lean_node() -> Iterator[None]:
    """Makes `ray.init` start a node without watchers and with stand-ins for its agents.

    Jobs with a `runtime_env` do not start on such a node, and it exports no metrics of Ray's own.
    """
    node, services = ray._private.node.Node, ray._private.services
    starters = {name: getattr(node, name) for name in _WATCHER_STARTERS}
    start = services.start_ray_process
    for name in starters:
        setattr(node, name, lambda *_, **__: None)
    services.start_ray_process = lambda command, *rest, **options: start(
        without_agents(command), *rest, **options
    )
    try:
        yield
    finally:
        services.start_ray_process = start
        for name, starter in starters.items():
            setattr(node, name, starter)


def without_agents(command: Sequence[str]) -> list[str]:
    """The command of one of Ray's processes, with stand-ins where it names agents.

    The ports an agent would have written down are written here, for the raylet reads them before
    it goes on.

    Args:
        command: Program and arguments; only the raylet's name agents.
    """
    options = dict(part.split("=", 1) for part in command if "=" in part)
    written: list[str] = []
    for part in command:
        option = part.split("=", 1)[0]
        if option in _AGENTS:
            part = f"{option}={_STAND_IN}"
            _write_ports(_AGENTS[option], options)
        written.append(part)
    return written


def _write_ports(names: Sequence[str], options: dict[str, Any]) -> None:
    folder, node_id = Path(options["--session_dir"]), options["--node_id"]
    for name in names:
        (folder / f"{name}_{node_id}").write_text(_NOBODYS_PORT)
