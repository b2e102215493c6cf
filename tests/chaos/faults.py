"""What is done to the site while requests come. Each fault begins and ends; then all is as before.

A process that was killed stays away until its fault ends, so that the others carry everything.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from protos.machine import processes
from tests.chaos import cluster
from tests.chaos.hosts import Host
from tests.chaos.scene import Phase, Scene
from tests.chaos.services import COMMAND, Service, stopped

CUT_S = 10.0
DELAY_S = 0.2
LOSS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail.

    Attributes:
        name: As the table shows it.
        inflict: Does it on entering and takes it back on leaving.
        gateway: Whose own requests may be lost with it; None: no request may.
        is_final: Nothing is whole again after it.
    """

    name: str
    inflict: Callable[[Scene], AbstractContextManager[None]]
    gateway: str | None = None
    is_final: bool = False


def endure(scene: Scene, fault: Fault, *, answers: int) -> Phase:
    """Inflicts a fault on a whole site and waits until it is whole again.

    Args:
        answers: Requests of each kind that must begin and end while the fault lasts.

    Raises:
        TimeoutError: they did not, or the site is not whole again.
    """
    gateway = fault.gateway and scene.site.gateway_url(scene.site.services[fault.gateway])
    began_s = time.monotonic()
    with fault.inflict(scene):
        scene.wait_for_answers(answers, since_s=time.monotonic())
    ended_s = time.monotonic()
    whole_s = None if fault.is_final else scene.wait_until_whole()
    return Phase(
        name=fault.name, gateway=gateway, began_s=began_s, ended_s=ended_s, whole_s=whole_s
    )


@contextmanager
def killed(service: Service) -> Iterator[None]:
    """A service gone by SIGKILL while it is entered."""
    service.kill()
    try:
        yield
    finally:
        service.start()


@contextmanager
def ray_killed(scene: Scene, host: str, name: str) -> Iterator[None]:
    """A process of Ray's gone by SIGKILL; Ray starts another one at once."""
    (pid,) = cluster.running([scene.site.hosts[host]], name)
    processes.send(pid, signal.SIGKILL)
    yield


@contextmanager
def replica_stopped(scene: Scene, host: str) -> Iterator[None]:
    """An encoder replica stopped by SIGSTOP while it is entered."""
    (pid,) = cluster.running([scene.site.hosts[host]], cluster.REPLICA)
    with stopped(pid):
        yield


@contextmanager
def head_lost(scene: Scene) -> Iterator[None]:
    """No head while it is entered; a replica that dies meanwhile is not replaced.

    Raises:
        AssertionError: it was replaced all the same.
    """
    site = scene.site
    with site.crashed(site.hosts["head"]):
        (pid,) = cluster.running([site.hosts["vision-2"]], cluster.REPLICA)
        processes.send(pid, signal.SIGKILL)
        yield
        assert not cluster.running([site.hosts["vision-2"]], cluster.REPLICA)


@contextmanager
def bad_cables(scene: Scene, *, delay_s: float = 0.0, loss: float = 0.0) -> Iterator[None]:
    """Late or lost frames at the hosts of both tiers."""
    with ExitStack() as cables:
        for service in [*scene.site.of_tier("vision"), *scene.site.of_tier("decoder")]:
            cables.enter_context(service.host.cable.bad(delay_s=delay_s, loss=loss))
        yield


@contextmanager
def cut_for(host: Host, seconds: float) -> Iterator[None]:
    """The link of a host down for so long; it is up again when this is entered."""
    with host.cable.cut():
        time.sleep(seconds)
    yield


@contextmanager
def frozen_for(service: Service, seconds: float) -> Iterator[None]:
    """A service stopped for so long, in which its clients can do nothing but wait for it."""
    with service.frozen():
        time.sleep(seconds)
    yield


@contextmanager
def restarted_in_turn(scene: Scene) -> Iterator[None]:
    """Every service ended by SIGTERM and started again, one after the other."""
    for service in scene.site.services.values():
        service.stop()
        service.start()
        scene.wait_until_whole()
    yield


@contextmanager
def nodes_restarted_in_turn(scene: Scene) -> Iterator[None]:
    """Ray's node on every vision host restarted in turn, as the README tells operators."""
    site = scene.site
    head = f"{site.hosts['head'].address}:{cluster.PORT}"
    for front in site.of_tier("vision"):
        node, began_s = site.nodes[front.host], time.monotonic()
        front.stop()
        node.run_beside([*COMMAND, "vision-drain", f"--ray-address={head}", "--wait-s=5"])
        restart_node(node)
        front.start()
        whole_s = scene.wait_until_whole() - began_s
        sys.stderr.write(f"{front.name}: whole {whole_s:.0f} s after its front was told to end\n")
    yield


@contextmanager
def head_restarted(scene: Scene) -> Iterator[None]:
    """Ray's head stopped and started again, with what it knows elsewhere."""
    restart_node(scene.site.nodes[scene.site.hosts["head"]])
    yield


def restart_node(node: Service) -> None:
    """`ray stop`, then `ray start`; returns when the node runs."""
    node.run_beside(cluster.STOP)
    node.start()
    node.wait_until_serving()


@contextmanager
def bundle_changed(scene: Scene) -> Iterator[None]:
    """One bundle replaced by another, half of everything at a time.

    A gateway uses what serves its own bundle: the second half has the new one before the first
    half gives up the old.
    """
    site = scene.site
    first, second = site.gateways
    site.bundle = renamed(site.bundle, site.client.folder / "renamed")
    for names, gateways in (
        (("vision-2", "decoder-2"), [first, second]),
        (("gateway-2",), [second]),
        (("gateway-1",), [first]),
        (("vision-1", "decoder-1"), []),
    ):
        for name in names:
            site.services[name].restart()
        if gateways:
            scene.wait_until_serving(1, gateways)
    yield


def renamed(bundle: Path, target: Path) -> Path:
    """The same weights as a bundle of another digest: the model has another name in it."""
    shutil.copytree(bundle, target, copy_function=os.link)
    manifest = target / "tandem.json"
    said = json.loads(manifest.read_text())
    manifest.unlink()  # not to write into the original
    manifest.write_text(json.dumps({**said, "model_id": f"{said['model_id']} renamed"}))
    return target


def _service(
    name: str, how: Callable[[Service], AbstractContextManager[None]]
) -> Callable[[Scene], AbstractContextManager[None]]:
    return lambda scene: how(scene.site.services[name])


def _link_down(name: str) -> Fault:
    return Fault(
        name=f"{name}: link down for {CUT_S:.0f} s",
        inflict=lambda scene: cut_for(scene.site.hosts[name], CUT_S),
    )


def _host_lost(name: str) -> Fault:
    return Fault(
        name=f"{name}: host lost", inflict=lambda scene: scene.site.crashed(scene.site.hosts[name])
    )


SERVICES = (
    Fault(name="decoder: SIGKILL", inflict=_service("decoder-1", killed)),
    Fault(name="decoder: SIGSTOP", inflict=_service("decoder-2", Service.frozen)),
    Fault(name="vision front: SIGKILL", inflict=_service("vision-1", killed)),
    Fault(name="vision front: SIGSTOP", inflict=_service("vision-2", Service.frozen)),
    Fault(name="gateway: SIGKILL", inflict=_service("gateway-2", killed), gateway="gateway-2"),
    Fault(
        name=f"gateway: SIGSTOP for {CUT_S:.0f} s",
        inflict=lambda scene: frozen_for(scene.site.services["gateway-1"], CUT_S),
        gateway="gateway-1",  # it may close connections that were silent for so long
    ),
)
HOSTS = (_host_lost("decoder-2"), _host_lost("vision-1"))
LINKS = (
    _link_down("decoder-1"),
    _link_down("vision-2"),
    Fault(
        name=f"every link of a tier: {DELAY_S * 1e3:.0f} ms later",
        inflict=lambda scene: bad_cables(scene, delay_s=DELAY_S),
    ),
    Fault(
        name=f"every link of a tier: {LOSS:.0%} lost",
        inflict=lambda scene: bad_cables(scene, loss=LOSS),
    ),
)
RAY = (
    Fault(
        name="replica: SIGKILL",
        inflict=lambda scene: ray_killed(scene, "vision-1", cluster.REPLICA),
    ),
    Fault(name="replica: SIGSTOP", inflict=lambda scene: replica_stopped(scene, "vision-2")),
    Fault(
        name="Serve's controller: SIGKILL",
        inflict=lambda scene: ray_killed(scene, "head", cluster.CONTROLLER),
    ),
    Fault(name="Ray's nodes restarted in turn", inflict=nodes_restarted_in_turn),
)
HEAD_KEPT = (
    Fault(name="Ray's head restarted, Redis elsewhere", inflict=head_restarted),
    Fault(name="Ray's head lost, Redis elsewhere", inflict=head_lost),
)
HEAD = (Fault(name="Ray's head lost, no Redis", inflict=head_lost, is_final=True),)
ROLLING = (
    Fault(name="everything restarted in turn", inflict=restarted_in_turn),
    Fault(name="bundle replaced by another", inflict=bundle_changed),
)

# What a run of all tests has time for.
FEW = (*SERVICES, _host_lost("decoder-2"), _link_down("vision-2"), LINKS[-1])
