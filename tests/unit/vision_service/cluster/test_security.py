"""Which clusters are joined: those that ask for a token or certificates, or are told to be open."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from protos.process.settings import SettingError
from vision_service.cluster import security
from vision_service.cluster.security import check_closed, is_loopback

FAR = "192.0.2.1:6379"


class Head(grpc.GenericRpcHandler):
    """Answers like a Ray head: whatever is asked, if a token comes with it where it wants one."""

    def __init__(self, *, wants_token: bool) -> None:
        self._wants_token = wants_token

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._wants_token and "authorization" not in dict(context.invocation_metadata()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return b""


@pytest.fixture(params=[True, False], ids=["closed", "open"])
def head(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Address of a head, and whether it wants a token."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head(wants_token=request.param)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", request.param
    server.stop(0)


def test_a_head_that_wants_a_token_is_told_from_one_that_does_not(head: tuple[str, bool]) -> None:
    address, wants_token = head
    assert security.asks_for_token(address) == wants_token


@pytest.fixture
def open_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "asks_for_token", lambda address: False)


@pytest.mark.usefixtures("open_cluster")
def test_an_open_cluster_is_refused_with_what_secures_and_what_opens_it() -> None:
    with pytest.raises(SettingError) as caught:
        check_closed(FAR, allow_insecure=False, environ={"RAY_AUTH_MODE": "token"})
    line = str(caught.value)
    for word in (FAR, "RAY_AUTH_MODE=token", "RAY_USE_TLS", "allow_insecure"):
        assert word in line
    assert "\n" not in line


@pytest.mark.usefixtures("open_cluster")
@pytest.mark.parametrize("address", ["127.0.0.1:6379", "127.0.0.2:6379", "localhost:6379"])
def test_loopback_is_joined_as_it_is(address: str) -> None:
    check_closed(address, allow_insecure=False, environ={})


@pytest.mark.usefixtures("open_cluster")
def test_certificates_or_the_setting_let_a_cluster_be_joined() -> None:
    check_closed(FAR, allow_insecure=True, environ={})
    check_closed(FAR, allow_insecure=False, environ={"RAY_USE_TLS": "1"})


def test_a_cluster_with_a_token_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "asks_for_token", lambda address: True)
    check_closed(FAR, allow_insecure=False, environ={})


def test_a_name_is_not_taken_for_this_machine() -> None:
    assert is_loopback("::1")
    assert not is_loopback("head.example")
