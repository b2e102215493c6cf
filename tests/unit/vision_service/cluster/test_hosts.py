"""Which hosts could run a replica, and that Ray counts replicas on a node as bars expect."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import ray
from ray.serve._private import deployment_scheduler

from vision_service.cluster import hosts
from vision_service.cluster.application import DEPLOYMENT
from vision_service.cluster.hosts import Bars, Host, problem_here


def node(name: str, *, cpus: float = 8.0, alive: bool = True, **labels: str) -> dict[str, Any]:
    return {
        "NodeID": name,
        "NodeManagerHostname": f"host-{name}",
        "NodeManagerAddress": "192.0.2.1",
        "Alive": alive,
        "Resources": {"CPU": cpus},
        "Labels": labels,
    }


def able(
    monkeypatch: pytest.MonkeyPatch,
    *nodes: dict[str, Any],
    leaving: Mapping[str, int] = MappingProxyType({}),
    **labels: str,
) -> list[str]:
    client = SimpleNamespace(get_draining_nodes=lambda timeout: leaving)
    monkeypatch.setattr(ray._private.worker.global_worker, "gcs_client", client, raising=False)
    monkeypatch.setattr(ray, "nodes", lambda: list(nodes))
    return [host.node_id for host in hosts.able(needs={"CPU": 4}, labels=labels)]


def test_dead_small_and_unlabelled_nodes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node("good", pool="vision"),
        node("dead", alive=False, pool="vision"),
        node("small", cpus=2, pool="vision"),
        node("other", pool="text"),
    ]
    assert able(monkeypatch, *nodes) == ["good", "other"]
    assert able(monkeypatch, *nodes, pool="vision") == ["good"]


def test_a_node_that_is_drained_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("stays"), node("leaves")]
    assert able(monkeypatch, *nodes, leaving={"leaves": 1_700_000_000_000}) == ["stays"]


def test_a_host_is_called_by_its_name_and_its_address() -> None:
    assert str(Host(node_id="5a", name="one", address="192.0.2.1")) == "one (192.0.2.1)"


def test_a_host_says_itself_what_it_lacks(tmp_path: Path) -> None:
    assert "not a folder" in str(problem_here("5a" * 32, [str(tmp_path / "none")]))


def test_a_bar_takes_what_serve_needs_a_part_of_for_a_replica() -> None:
    request = deployment_scheduler.ReplicaSchedulingRequest
    source = inspect.getsource(request.requested_resources.fget)
    assert 'f"{IMPLICIT_RESOURCE_PREFIX}"' in source
    assert 'f"{deployment_id.app_name}:{deployment_id.name}"' in source
    assert "1.0 / self.max_replicas_per_node" in source
    prefix = deployment_scheduler.IMPLICIT_RESOURCE_PREFIX
    assert Bars("vision-5a")._resource == f"{prefix}vision-5a:{DEPLOYMENT}"
