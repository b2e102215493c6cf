"""What is left out of Ray's node, and that Ray still asks for it by these names."""

import inspect
from pathlib import Path

import pytest
import ray

from vision_service.replicas.lean_node import _AGENTS, _WATCHER_STARTERS, lean_node, without_agents

NODE_ID = "5a" * 28


def raylet(folder: Path) -> list[str]:
    return [
        "/ray/raylet",
        f"--session_dir={folder}",
        f"--node_id={NODE_ID}",
        "--num_prestart_python_workers=2",
        "--dashboard_agent_command=python -u agent.py --listen-port=0",
        "--runtime_env_agent_command=python main.py --log=a=b",
        "--head",
    ]


def test_the_raylet_gets_stand_ins_and_everything_else_as_it_was(tmp_path: Path) -> None:
    before = raylet(tmp_path)
    assert without_agents(before) == [
        *before[:4],
        "--dashboard_agent_command=sleep infinity",
        "--runtime_env_agent_command=sleep infinity",
        "--head",
    ]


def test_ray_finds_the_ports_that_agents_would_write(tmp_path: Path) -> None:
    without_agents(raylet(tmp_path))
    names = [name for agent in _AGENTS.values() for name in agent]
    assert len(set(names)) == 4
    constants = vars(ray._raylet)
    assert set(names) < {constants[name] for name in constants if name.endswith("_PORT_NAME")}
    for name in names:
        assert ray._raylet.wait_for_persisted_port(str(tmp_path), NODE_ID, name, 100) == 1


def test_other_processes_start_as_ray_wants_them(tmp_path: Path) -> None:
    command = ["/ray/gcs_server", "--log_dir=/logs", "--config_list=e30=", "--flag"]
    assert without_agents(command) == command
    assert not list(tmp_path.iterdir())


def test_ray_is_as_it_was_afterwards() -> None:
    node, services = ray._private.node.Node, ray._private.services
    names = {name: getattr(node, name) for name in _WATCHER_STARTERS}
    start = services.start_ray_process
    with pytest.raises(RuntimeError), lean_node():
        assert all(getattr(node, name) is not was for name, was in names.items())
        assert services.start_ray_process is not start
        raise RuntimeError("Ray did not start")
    assert all(getattr(node, name) is was for name, was in names.items())
    assert services.start_ray_process is start


def test_ray_still_starts_its_raylet_by_the_names_that_are_replaced() -> None:
    source = inspect.getsource(ray._private.services.start_raylet)
    assert "start_ray_process(\n        command," in source
    for option in (*_AGENTS, "--session_dir", "--node_id"):
        assert f'"{option}=' in source
