"""Which addresses are public, in every form they can be written in."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.media.networks import is_public, is_within

INSIDE = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # metadata of Alibaba's cloud
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # the host of Azure's agents
    "169.254.169.254",  # metadata of most clouds
    "172.16.0.1",
    "192.0.0.192",  # metadata of Oracle's cloud
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
)
INSIDE_V6 = (
    "::",
    "::1",
    "::7f00:1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of Amazon's cloud
    "ff02::1",
    "2001:db8::1",
)
PUBLIC = ("1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::")


def wrappings(address: str) -> list[str]:
    """IPv6 addresses whose packets end up at this IPv4 one."""
    number = int(ipaddress.IPv4Address(address))
    return [
        f"::ffff:{address}",
        str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + number)),
        str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b:1::")) + number)),
        str(ipaddress.IPv6Address((0x2002 << 112) + (number << 80))),
        # Teredo: the client's address with its bits turned over.
        str(ipaddress.IPv6Address((0x20010000 << 96) + (number ^ 0xFFFFFFFF))),
    ]


@pytest.mark.parametrize("address", [*INSIDE, *INSIDE_V6])
def test_what_only_the_server_can_reach_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_everybody_can_reach_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", INSIDE)
def test_no_form_of_ipv6_hides_an_address(address: str) -> None:
    for wrapped in wrappings(address):
        assert not is_public(ipaddress.ip_address(wrapped)), wrapped


@given(st.ip_addresses(v=4))
def test_an_address_is_as_public_as_what_it_leads_to(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.ip_address(f"::ffff:{address}")
    assert is_public(mapped) == is_public(address)


def test_a_network_holds_the_addresses_that_lead_into_it() -> None:
    private = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::5"):
        assert is_within(ipaddress.ip_address(address), private)
    for address in ("10.2.0.1", "127.0.0.1", "::1"):
        assert not is_within(ipaddress.ip_address(address), private)
