"""What a service process does when it serves."""

import gc
import json
import resource

import pytest

from protos.process.main import MOST_DESCRIPTORS, ServiceProcess, allow_descriptors


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


def test_a_service_may_have_more_connections_than_the_usual_limit_of_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        allow_descriptors()
        raised, kept = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (raised, kept) == (min(hard, MOST_DESCRIPTORS), hard)
        allow_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, kept)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
