"""Which addresses media may be fetched from: public ones, whatever form they come in.

A server that fetches what its clients name is asked, sooner or later, for what only it can reach.
"""

import ipaddress
from collections.abc import Iterable, Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Public to `ipaddress`, at least in its older versions, and yet the inside of something.
_INSIDE = (
    ipaddress.ip_network("168.63.129.16/32"),  # the host of Azure's virtual machines
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata
    ipaddress.ip_network("3fff::/20"),  # documentation
    ipaddress.ip_network("5f00::/16"),  # segment routing
)

# IPv6 networks whose addresses hold an IPv4 one that packets end up at, and the bit its last one
# stands at. NAT64: RFC 6052 and 8215. (6to4, Teredo and mapped addresses have properties.)
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def is_public(address: Address) -> bool:
    """Whether an address is one that anybody on the internet can reach, however it is written.

    An IPv6 address that leads to an IPv4 one (mapped, compatible, 6to4, Teredo, NAT64) is as
    public as that one.

    Source: IANA's registries of special addresses, as `ipaddress` knows them.
    """
    return all(each.is_global and not _is_special(each) for each in _meant(address))


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address, or the IPv4 one that it leads to, lies in one of the networks."""
    return any(each in network for each in _meant(address) for network in networks)


def _is_special(address: Address) -> bool:
    # Site-local addresses were given up, and some networks use them still.
    given_up = address.version == 6 and address.is_site_local
    return address.is_multicast or given_up or any(address in network for network in _INSIDE)


def _meant(address: Address) -> Iterator[Address]:
    """Every address that packets to this one may end up at."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    compatible = int(address) >> 32 == 0 and int(address) > 0xFFFF
    if compatible or any(address in network for network in _NAT64):
        yield low
