"""The hosts of a cluster: which could run a replica, and which have the bundle.

A host without the bundle is kept free of replicas by a *bar*: an actor there that holds the whole
of a resource of which each replica needs a part. It holds no other resource, and goes when the host
has the bundle. Serve knows no other way to leave out hosts that join later than to start all
replicas anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from protos.bundle.manifest import BundleError
from vision_service import places
from vision_service.cluster.application import DEPLOYMENT

NAMESPACE = "tandem"

_ANSWER_S = 60.0  # a host whose cores are busy starts a Python process late


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A Ray node as operators know it."""

    node_id: str
    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def able(*, needs: Mapping[str, float], labels: Mapping[str, str]) -> list[Host]:
    """Living nodes that could run a replica if they were idle, and are not about to leave.

    Args:
        needs: Ray resources of a replica.
        labels: That a node must have.
    """
    leaving = _draining()
    return [
        Host(
            node_id=node["NodeID"],
            name=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] not in leaving
        and all(node["Resources"].get(name, 0.0) >= amount for name, amount in needs.items())
        and labels.items() <= node["Labels"].items()
    ]


def _draining() -> set[str]:
    # NOTE: a private name; Ray's public list of nodes does not tell which of them are drained.
    client = ray._private.worker.global_worker.gcs_client
    return set(client.get_draining_nodes(timeout=_ANSWER_S))


def problems(hosts: Sequence[Host], digest: str, folders: Sequence[str]) -> dict[Host, str | None]:
    """What keeps each host from running a replica; None: nothing."""
    if not hosts:
        return {}
    asked = {
        host: _PROBLEM.options(scheduling_strategy=_on(host)).remote(digest, folders)
        for host in hosts
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
    return {host: _answer(reference) for host, reference in asked.items()}


class Bars:
    """The bars of one application; any of its fronts puts and lifts them."""

    def __init__(self, application: str) -> None:
        self._prefix = f"{application}/"
        # The resource by which Serve counts replicas on a node (`max_replicas_per_node`): every
        # node has 1 of it, whatever the name.
        self._resource = f"{ray._raylet.IMPLICIT_RESOURCE_PREFIX}{application}:{DEPLOYMENT}"

    def put(self, host: Host) -> None:
        """Keeps replicas off a host. Returns at once; one that starts there fails by itself."""
        _BAR.options(
            name=f"{self._prefix}{host.node_id}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            resources={self._resource: 1},
            scheduling_strategy=_on(host),
        ).remote()

    def nodes(self) -> set[str]:
        """Ids of the nodes that have a bar."""
        named = ray.util.list_named_actors(all_namespaces=True)
        ours = (actor["name"] for actor in named if actor["namespace"] == NAMESPACE)
        return {name.removeprefix(self._prefix) for name in ours if name.startswith(self._prefix)}

    def problem(self, host: Host, digest: str, folders: Sequence[str]) -> str | None:
        """What its bar says of a host now; None: it has the bundle, or the bar is gone."""
        bar = self._of(host.node_id)
        if bar is None:
            return None
        reference = bar.problem.remote(digest, folders)
        ray.wait([reference], timeout=_ANSWER_S)
        return _answer(reference)

    def lift(self, node_ids: Iterable[str]) -> None:
        """Removes bars; another front may have done so."""
        for node_id in node_ids:
            bar = self._of(node_id)
            if bar is not None:
                ray.kill(bar)

    def _of(self, node_id: str) -> Any:
        try:
            return ray.get_actor(f"{self._prefix}{node_id}", namespace=NAMESPACE)
        except ValueError:
            return None


def problem_here(digest: str, folders: Sequence[str]) -> str | None:
    """What keeps this process's host from running a replica; None: it has the bundle."""
    try:
        places.locate(digest, folders)
    except BundleError as error:
        return str(error)
    return None


class Bar:
    """The actor that keeps replicas off its host, and looks there for the bundle."""

    def problem(self, digest: str, folders: Sequence[str]) -> str | None:
        """See `problem_here`."""
        return problem_here(digest, folders)


_PROBLEM: Any = ray.remote(num_cpus=0, max_retries=0)(problem_here)
_BAR: Any = ray.remote(num_cpus=0)(Bar)


def _on(host: Host) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(host.node_id, soft=False)


def _answer(reference: Any) -> str | None:
    try:
        answer: str | None = ray.get(reference, timeout=0)
    except ray.exceptions.RayError as error:
        # It has no Tandem, or another release of it or of Python, or it died, or is too slow.
        text = str(error).strip().splitlines() or ["no reason given"]
        return f"it could not be asked: {type(error).__name__}: {text[-1]}"
    return answer
