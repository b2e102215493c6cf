"""How long Ray's start may take, and what is said where it fails."""

import importlib.util
import inspect
from typing import Any

import pytest
import ray

from protos.process.settings import SettingError
from vision_service.__main__ import PRELOADED, _ray_environment, _startup_limits
from vision_service.config import VisionConfig
from vision_service.jobs import EncodersNotStarted
from vision_service.replicas import ray_runtime
from vision_service.replicas.ray_runtime import patient, starting


class LateNode:
    """Answers the question for the node after so many refusals."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def __call__(self, *arguments: Any) -> dict[str, str]:
        if self.refusals == 0:
            return {"asked": "/".join(arguments)}
        self.refusals -= 1
        raise RuntimeError("no such node")


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateNode:
    node = LateNode(refusals=3)
    monkeypatch.setattr(ray._private.services, "get_node", node)
    monkeypatch.setattr(ray_runtime, "_NODE_POLL_S", 0.001)
    monkeypatch.setattr(ray_runtime, "_node_lives", lambda: True)
    return node


def test_one_question_for_the_node_lasts_until_it_is_there(late: LateNode) -> None:
    with patient(30.0):
        assert ray._private.services.get_node("address", "id") == {"asked": "address/id"}
    assert ray._private.services.get_node is late


def test_the_wait_ends_with_its_time(late: LateNode) -> None:
    with patient(0.0), pytest.raises(RuntimeError):
        ray._private.services.get_node("address", "id")
    assert late.refusals == 2


def test_a_node_that_died_is_not_waited_for(
    late: LateNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runtime, "_node_lives", lambda: False)
    with patient(30.0), pytest.raises(RuntimeError):
        ray._private.services.get_node("address", "id")
    assert late.refusals == 2


def test_ray_still_asks_for_its_node_by_the_name_that_is_replaced() -> None:
    source = inspect.getsource(ray._private.node.Node.__init__)
    assert "ray._private.services.get_node(" in source
    assert "except RuntimeError" in source


def test_ray_s_processes_wait_for_each_other_as_long() -> None:
    limits = _startup_limits(90.5)
    assert limits.pop("RAY_agent_register_timeout_ms") == "90500"
    assert set(limits.values()) == {"91"}


@pytest.mark.filterwarnings("ignore")  # what Serve itself uses is not ours to mend
@pytest.mark.parametrize("module", PRELOADED)
def test_what_ray_s_workers_import_beforehand_exists(module: str) -> None:
    assert importlib.util.find_spec(module) is not None  # Ray would only log that it does not


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup.\nmore"),
        RuntimeError("unable to start"),
        ValueError("object store too small"),
        PermissionError(13, "Permission denied"),
        ConnectionError("ray client"),
        TimeoutError(),
        ray.exceptions.RaySystemError("raylet died"),
        ray.exceptions.RpcError("unreachable"),
    ],
)
def test_whatever_keeps_ray_from_starting_becomes_one_line(error: Exception) -> None:
    with pytest.raises(EncodersNotStarted) as caught, starting("Ray"):
        raise error
    line = str(caught.value)
    assert line.startswith(f"Ray did not start: {type(error).__name__}: ")
    assert "\n" not in line


def test_a_setting_that_is_wrong_is_told_as_such() -> None:
    with pytest.raises(SettingError), starting("Ray"):
        raise SettingError("device")


def test_a_ray_of_our_own_is_closed_whatever_the_environment_says() -> None:
    ours = _ray_environment(VisionConfig(bundle="x"), {"RAY_AUTH_MODE": "disabled"})
    assert ours["RAY_AUTH_MODE"] == "token"
    assert len(ours["RAY_AUTH_TOKEN"]) == 64


def test_on_a_cluster_the_operator_s_token_and_certificates_stay() -> None:
    theirs = {"RAY_AUTH_MODE": "token", "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "9"}
    added = _ray_environment(VisionConfig(bundle="x", ray_address="auto"), theirs)
    assert not added.keys() & theirs.keys()
    assert added["RAY_SERVE_USE_GRPC_BY_DEFAULT"] == "0"
    kept = ("RAY_AUTH", "RAY_USE_TLS", "RAY_TLS", "RAY_ENABLE_WIN", "RAY_preload")
    assert not [name for name in added if name.startswith(kept)]
