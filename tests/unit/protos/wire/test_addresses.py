"""IPv4, IPv6 and names in every form a setting may have."""

import pytest

from protos.wire.addresses import join, reachable, split


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("127.0.0.1", 1, "127.0.0.1:1"),
        ("::1", 50050, "[::1]:50050"),
        ("[fe80::2]", 7, "[fe80::2]:7"),
        ("vision.local", 80, "vision.local:80"),
    ],
)
def test_an_address_is_written_so_that_it_can_be_read(host: str, port: int, text: str) -> None:
    assert join(host, port) == text
    assert split(text) == (host.strip("[]"), port)


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:x", "host:0", "host:65536", "::1:50", "host:\u0661"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        split(text)


@pytest.mark.parametrize(
    ("host", "client"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("", "127.0.0.1"), ("[::1]", "::1"), ("h", "h")],
)
def test_a_server_on_every_address_is_reached_on_loopback(host: str, client: str) -> None:
    assert reachable(host) == client
