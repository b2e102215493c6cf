"""Serve started by several fronts at the same moment."""

from typing import Any

import pytest
from ray import serve
from ray.exceptions import ActorAlreadyExistsError

from vision_service.cluster.application import Application


def test_a_front_uses_the_serve_that_another_has_just_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[dict[str, Any]] = []

    def start(**options: Any) -> None:
        starts.append(options)
        if len(starts) == 1:
            raise ActorAlreadyExistsError("SERVE_CONTROLLER_ACTOR is already taken")

    monkeypatch.setattr(serve, "start", start)
    monkeypatch.setattr(serve, "run_many", lambda *_, **__: ["handle"])
    replicas = Application(name="vision", replica=object, arguments=(), options={})
    monkeypatch.setattr(Application, "bound", lambda _: None)
    assert replicas.run() == "handle"
    assert len(starts) == 2
