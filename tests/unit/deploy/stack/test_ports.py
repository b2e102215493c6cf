"""Ports of a one-machine stack, on IPv4 and IPv6."""

import socket

import pytest

from deploy.stack.ports import ANY_FREE, PortConflict, Ports, settle_ports


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "::", "localhost"])
def test_free_ports_are_found_for_every_form_of_host(host: str) -> None:
    settled = settle_ports(host, ANY_FREE)
    assert len(set(settled.named().values())) == 4


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_a_port_taken_on_ipv6_is_named_with_its_option(host: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortConflict, match=f"port {port} is already in use.* --http-port"):
            settle_ports(host, Ports(http=port, grpc=0, vision=0, decoder=0))


def test_a_host_that_is_not_this_machine_s_is_told_so_whatever_its_ports() -> None:
    with pytest.raises(PortConflict, match=r"'2001:db8::1' is not an address of this machine"):
        settle_ports("2001:db8::1", ANY_FREE)
