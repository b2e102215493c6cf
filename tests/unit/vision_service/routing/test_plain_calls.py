"""Calls that no silent caller holds up, and the private name that they need."""

import inspect
from typing import Any

import pytest
from ray.serve._private.router import AsyncioRouter

from vision_service.routing.plain_calls import STRICT, use_plain_calls


def test_ray_still_has_the_option_that_is_turned_off() -> None:
    assert STRICT in inspect.signature(AsyncioRouter.__init__).parameters


def test_routers_made_afterwards_ask_without_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(AsyncioRouter, "__init__", lambda self, **options: made.append(options))
    use_plain_calls()
    AsyncioRouter(**{STRICT: True, "other": 1})
    assert made == [{STRICT: False, "other": 1}]
