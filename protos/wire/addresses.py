"""Addresses as settings, clients and log lines write them: IPv4, IPv6 in brackets, names."""

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
ANY_HOSTS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def join(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets: "[::1]:50052"."""
    return f"[{bare(host)}]:{port}" if ":" in host else f"{host}:{port}"


def bare(host: str) -> str:
    """A host without the brackets that IPv6 addresses wear beside a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def reachable(host: str) -> str:
    """The host a client on this machine uses for a server that listens on `host`."""
    return ANY_HOSTS.get(bare(host), bare(host))


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of `host:port`.

    Raises:
        ValueError: it has another form; the text says which is expected.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal():
        raise ValueError(f"{address!r} is not an address, expected HOST:PORT")
    if ":" in host and bare(host) == host:
        raise ValueError(f"{address!r} is not an address, expected [IPV6]:PORT")
    if not 0 < int(port) <= 65535:
        raise ValueError(f"{address!r} has port {port}, expected 1 to 65535")
    return bare(host), int(port)
