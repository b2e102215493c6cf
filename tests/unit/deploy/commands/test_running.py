"""Stacks that live as long as a command."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from deploy.commands.running import own_stack
from protos.tandem.v1 import gateway_pb2
from tests.support.waiting import wait_until
from tests.unit.deploy.fake_gateway import FakeGateway
from tests.unit.deploy.fakes import fake_settings


@pytest.mark.parametrize("in_environment", [None, "theirs"])
def test_a_command_asks_its_own_stack_with_the_key_that_it_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_environment: str | None
) -> None:
    if in_environment is not None:
        monkeypatch.setenv("GATEWAY_API_KEY", in_environment)
    settings = fake_settings(tmp_path, gateway=("serve", "--show-environment=GATEWAY_API_KEY"))
    with (
        own_stack(Console(file=io.StringIO()), settings) as (stack, client),
        FakeGateway(["Hi"], port=stack.ports.grpc) as gateway,
    ):
        assert list(client.complete(gateway_pb2.ChatRequest()))
        log = tmp_path / "logs" / "gateway.log"
        wait_until(lambda: "GATEWAY_API_KEY is" in log.read_text(), what="the gateway's key")
        key = log.read_text().split("GATEWAY_API_KEY is ")[1].split("\n")[0]
    assert gateway.metadata[0]["authorization"] == f"Bearer {key}"
    assert key != "theirs"
