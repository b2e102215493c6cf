"""What a service process does when it serves."""

import gc
import json

import pytest

from protos.process.main import ServiceProcess


def test_what_is_there_when_a_service_serves_is_not_collected_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frozen = gc.get_freeze_count()
    try:
        ServiceProcess("gateway").announce(http=8000, admin=None)
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
    told = {"event": "serving", "tier": "gateway", "ports": {"http": 8000}}
    assert json.loads(capsys.readouterr().out) == told
