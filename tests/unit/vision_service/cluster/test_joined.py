"""A cluster that is not there is said at once."""

import socket

import pytest
import ray

from vision_service.cluster.joined import join, resolved


def test_an_address_where_nobody_listens_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"127.0.0.2:{port}"):
        join(f"127.0.0.2:{port}", None, False)
    assert not ray.is_initialized()


def test_auto_needs_a_node_on_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    services = ray._private.services
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: None)
    with pytest.raises(ConnectionError, match="auto"):
        resolved("auto")


def test_an_address_is_taken_as_it_is() -> None:
    assert resolved("192.0.2.1:6379") == "192.0.2.1:6379"
