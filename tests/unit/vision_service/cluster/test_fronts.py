"""Who uses an application, in a store and a list of jobs that are not Ray's own."""

import inspect
from typing import Any

import pytest
import ray
from ray.experimental import internal_kv

from vision_service.cluster import fronts

NAME = "vision-5a"


class Store:
    """What `internal_kv` keeps, and the jobs that live."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.dead: set[str] = set()
        self.job = "01"

    def put(self, key: bytes, value: bytes, *, namespace: bytes) -> None:
        self.keys.add(key)

    def delete(self, key: bytes, *, namespace: bytes) -> None:
        self.keys.discard(key)

    def list_keys(self, prefix: str, *, namespace: bytes) -> list[bytes]:
        return [key for key in self.keys if key.startswith(prefix.encode())]

    def jobs(self) -> list[dict[str, Any]]:
        return [{"JobID": f"{n:02}", "IsDead": f"{n:02}" in self.dead} for n in range(1, 5)]

    def get_job_id(self) -> str:
        return self.job


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(internal_kv, "_internal_kv_put", made.put)
    monkeypatch.setattr(internal_kv, "_internal_kv_del", made.delete)
    monkeypatch.setattr(internal_kv, "_internal_kv_list", made.list_keys)
    monkeypatch.setattr(ray._private.state, "jobs", made.jobs)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: made)
    return made


def entered(store: Store, *jobs: str) -> None:
    for store.job in jobs:
        fronts.enter(NAME)


def test_the_last_front_to_leave_sees_none(store: Store) -> None:
    entered(store, "01", "02")
    assert fronts.leave(NAME) == 1
    store.job = "01"
    assert fronts.leave(NAME) == 0


def test_a_killed_front_counts_no_more_and_is_forgotten(store: Store) -> None:
    entered(store, "01", "02", "03")
    store.dead = {"02"}
    assert fronts.living(NAME) == ["01", "03"]
    assert len(store.keys) == 2


def test_fronts_of_another_application_do_not_count(store: Store) -> None:
    entered(store, "01")
    fronts.enter(f"{NAME}5a")
    assert fronts.living(NAME) == ["01"]


def test_ray_still_has_the_store_and_the_list() -> None:
    for name in ("_internal_kv_put", "_internal_kv_del", "_internal_kv_list"):
        assert "namespace" in inspect.signature(getattr(internal_kv, name)).parameters
    source = inspect.getsource(ray._private.state.GlobalState.job_table)
    assert '"JobID"' in source
    assert '"IsDead"' in source
