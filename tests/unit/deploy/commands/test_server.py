"""Which gateway a user means, by what they were shown."""

import os
from pathlib import Path

import pytest

from deploy.client import TIER_SERVICES
from deploy.commands.server import connected, grpc_address
from deploy.stack.record import recorded, records
from deploy.terminal.screen import CommandError
from tests.unit.deploy.fake_gateway import FakeGateway

ADDRESSES = {
    "gateway": "127.0.0.1:41000",
    "vision": "127.0.0.1:41001",
    "decoder": "127.0.0.1:41002",
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return {"XDG_STATE_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    "server",
    ["http://127.0.0.1:40000/v1", "http://localhost:40000", "127.0.0.1:40000", "[::1]:40000"],
)
def test_the_http_door_of_a_stack_on_this_machine_leads_to_its_grpc_door(
    state: dict[str, str], server: str
) -> None:
    with recorded(state, http_port=40000, addresses=ADDRESSES):
        assert grpc_address(server, state) == "127.0.0.1:41000"


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("http://example.org:8000/v1", "example.org:50050"),
        ("https://example.org:8443/v1", "example.org:50050"),
        ("http://[2001:db8::1]:8000/v1", "[2001:db8::1]:50050"),
        ("example.org:7000", "example.org:7000"),
        ("127.0.0.1:7000", "127.0.0.1:7000"),
    ],
)
def test_elsewhere_a_url_means_the_usual_port(
    state: dict[str, str], server: str, address: str
) -> None:
    with recorded(state, http_port=8000, addresses=ADDRESSES):
        assert grpc_address(server, state) == address


@pytest.mark.parametrize("server", ["ftp://example.org/v1", "example.org", "http://", "::1:80"])
def test_what_is_no_address_is_refused(state: dict[str, str], server: str) -> None:
    with pytest.raises(CommandError) as caught:
        grpc_address(server, state)
    assert caught.value.exit_code == 2


def test_a_record_ends_with_its_stack(state: dict[str, str]) -> None:
    with recorded(state, http_port=40000, addresses=ADDRESSES):
        assert [record.pid for record in records(state)] == [os.getpid()]
    assert records(state) == []


def test_records_of_a_launcher_that_was_killed_or_wrote_nonsense_are_passed_over(
    state: dict[str, str], tmp_path: Path
) -> None:
    with recorded(state, http_port=40000, addresses=ADDRESSES):
        (path,) = (tmp_path / "tandem" / "stacks").iterdir()
        gone = path.read_text().replace(str(os.getpid()), str(2**22 + 1))  # above any pid
        path.with_name("1.json").write_text(gone)
        path.with_name("2.json").write_text("{")
        path.with_name("3.json").write_text("{}")
        assert len(records(state)) == 1


def test_a_tier_is_told_for_what_it_is_and_its_gateway_named(state: dict[str, str]) -> None:
    with FakeGateway([], services=[TIER_SERVICES["vision"]]) as tier:
        known = recorded(state, http_port=40000, addresses={**ADDRESSES, "vision": tier.address})
        with (
            known,
            pytest.raises(CommandError) as caught,
            connected(tier.address, api_key=None, otherwise="start one"),
        ):
            pass
    assert str(caught.value) == (
        f"{tier.address} is the vision tier; its gateway listens on 127.0.0.1:41000"
    )


def test_a_tier_of_unknown_origin_is_told_too(state: dict[str, str]) -> None:
    with (
        FakeGateway([], services=[TIER_SERVICES["decoder"]]) as tier,
        pytest.raises(CommandError, match="is the decoder tier; .* port 50050"),
        connected(tier.address, api_key=None, otherwise="start one"),
    ):
        pass
