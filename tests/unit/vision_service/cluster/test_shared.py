"""What one of several fronts does with the application that they share, on a cluster of fakes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from vision_service.cluster import application as serving
from vision_service.cluster import fronts, hosts, shared
from vision_service.cluster.application import Application, NoReplicaStarted, Standing
from vision_service.cluster.hosts import Host
from vision_service.cluster.shared import Placement, SharedApplication

NAME = "vision-5a"
RUNNING = Standing(running=1, complete=True, failure=None)
FAILED = Standing(running=0, complete=False, failure="no replica started: all hosts lack it")

PLACEMENT = Placement(
    digest="5a" * 32, folders=["/bundle"], needs={"CPU": 4}, labels={}, startup_timeout_s=0.5
)


class Cluster:
    """A cluster with one application at most, and hosts with and without the bundle."""

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self.comes_up_as: Standing | None = RUNNING
        self.declared = False
        self.fronts = 0
        self.problems: dict[str, str | None] = {"good": None}
        self.barred: set[str] = set()
        self.brought = 0
        self.asked: list[str] = []

    def run(self) -> str:
        self.brought += 1
        self.standing = self.comes_up_as
        return f"handle {self.brought}"

    def delete(self, name: str) -> None:
        assert name == NAME
        self.standing = None

    def enter(self, name: str) -> None:
        self.fronts += 1

    def leave(self, name: str) -> int:
        self.fronts -= 1
        return self.fronts

    def able(self, **_: Any) -> list[Host]:
        return [Host(node_id=name, name=name, address="192.0.2.1") for name in self.problems]

    def ask(self, new: Sequence[Host], digest: str, folders: Any) -> dict[Host, str | None]:
        self.asked += [host.name for host in new]
        return {host: self.problems[host.name] for host in new}


class FakeBars:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def put(self, host: Host) -> None:
        self._cluster.barred.add(host.node_id)

    def nodes(self) -> set[str]:
        return set(self._cluster.barred)

    def problem(self, host: Host, digest: str, folders: Any) -> str | None:
        return self._cluster.problems[host.name]

    def lift(self, node_ids: set[str]) -> None:
        self._cluster.barred -= set(node_ids)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(serving, "standing_of", lambda name: made.standing)
    monkeypatch.setattr(serving, "is_declared", lambda name: made.declared)
    monkeypatch.setattr(serving, "delete", made.delete)
    monkeypatch.setattr(serving, "handle_of", lambda name: "theirs")
    monkeypatch.setattr(Application, "run", lambda self: made.run())
    monkeypatch.setattr(fronts, "enter", made.enter)
    monkeypatch.setattr(fronts, "leave", made.leave)
    monkeypatch.setattr(hosts, "able", made.able)
    monkeypatch.setattr(hosts, "problems", made.ask)
    monkeypatch.setattr(shared, "Bars", lambda name: FakeBars(made))
    monkeypatch.setattr(shared, "_ROUND_S", 0.01)
    monkeypatch.setattr(shared, "_POLL_S", 0.01)
    return made


class Front:
    """A front on that cluster, and the handles that it got."""

    def __init__(self, *, keep: bool = False) -> None:
        self.handles: list[Any] = []
        application = Application(name=NAME, replica=Front, arguments=(), options={})
        self.shared = SharedApplication(
            application, PLACEMENT, keep=keep, on_handle=self.handles.append
        )


async def started(*, keep: bool = False) -> Front:
    front = Front(keep=keep)
    await front.shared.start()
    return front


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_the_last_front_ends_what_the_first_one_brought(cluster: Cluster) -> None:
    cluster.problems["bad"] = "no bundle"
    first, second = await started(), await started()
    assert cluster.barred == {"bad"}
    await first.shared.stop()
    assert cluster.standing == RUNNING
    await second.shared.stop()
    assert cluster.standing is None
    assert cluster.barred == set()


async def test_the_last_front_leaves_what_it_is_told_to_keep(cluster: Cluster) -> None:
    await (await started(keep=True)).shared.stop()
    assert cluster.standing == RUNNING


async def test_what_serve_deploy_brought_is_neither_changed_nor_ended(cluster: Cluster) -> None:
    cluster.standing, cluster.declared = RUNNING, True
    front = await started()
    await front.shared.stop()
    assert front.handles == ["theirs"]
    assert (cluster.brought, cluster.standing) == (0, RUNNING)


async def test_a_host_without_the_bundle_is_named_and_barred_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    front = await started()
    cluster.problems["late"] = "no bundle of digest 5a"
    await until(lambda: cluster.barred == {"late"})
    await asyncio.sleep(0.05)
    await front.shared.stop()
    assert cluster.asked == ["good", "late"]
    assert "host late (192.0.2.1) gets no replica: no bundle of digest 5a" in caplog.text


async def test_a_front_that_comes_later_names_hosts_that_are_barred_already(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.problems["bad"], cluster.barred = "no bundle of digest 5a", {"bad"}
    front = await started()
    await front.shared.stop()
    assert cluster.asked == ["good"]
    assert caplog.text.count("host bad (192.0.2.1) gets no replica") == 1


async def test_a_host_that_lost_the_bundle_is_barred_once_a_replica_is_missing(
    cluster: Cluster,
) -> None:
    front = await started()
    cluster.problems["good"] = "no bundle of digest 5a"
    await asyncio.sleep(0.05)
    assert cluster.barred == set()
    cluster.standing = Standing(running=0, complete=False, failure=None)
    await until(lambda: cluster.barred == {"good"})
    await front.shared.stop()


async def test_a_host_that_gets_the_bundle_is_let_in(cluster: Cluster) -> None:
    cluster.problems["bad"] = "no bundle"
    front = await started()
    assert cluster.barred == {"bad"}
    cluster.problems["bad"] = None
    await until(lambda: not cluster.barred)
    await front.shared.stop()


async def test_an_application_that_somebody_took_away_is_brought_again(cluster: Cluster) -> None:
    front = await started()
    cluster.standing = None
    await until(lambda: cluster.standing == RUNNING)
    await front.shared.stop()
    assert front.handles == ["handle 1", "handle 2"]


async def test_what_serve_has_given_up_is_taken_away_before_it_is_tried_again(
    cluster: Cluster,
) -> None:
    cluster.standing = FAILED
    front = await started()
    assert front.handles == ["handle 1"]
    await front.shared.stop()


async def test_a_front_without_any_replica_says_why(cluster: Cluster) -> None:
    cluster.comes_up_as = FAILED
    with pytest.raises(NoReplicaStarted, match="all hosts lack it"):
        await started()


async def test_a_replica_that_does_not_come_is_not_waited_for_for_ever(cluster: Cluster) -> None:
    cluster.comes_up_as = None
    with pytest.raises(NoReplicaStarted, match="a replica needs 4 CPU on one of 1 hosts"):
        await started()


async def test_a_front_that_never_entered_ends_nothing(cluster: Cluster) -> None:
    cluster.standing = RUNNING
    await Front().shared.stop()
    assert cluster.standing == RUNNING


async def test_a_cluster_that_does_not_answer_ends_no_front(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    front = await started()

    def away(**_: Any) -> list[Host]:
        raise RuntimeError("no head")

    with monkeypatch.context() as patch:
        patch.setattr(hosts, "able", away)
        await until(lambda: "nothing scales" in caplog.text)
        await asyncio.sleep(0.05)
    assert caplog.text.count("nothing scales") == 1
    cluster.problems["late"] = "no bundle"
    await until(lambda: cluster.barred == {"late"})
    await front.shared.stop()
