"""Ports of a one-machine stack: which are wanted, which are free."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protos.process.server import BindError, bind
from protos.wire import channels

LOOPBACK = "127.0.0.1"

# Below the kernel's usual range for outgoing connections and above Ray's for its workers, so
# that a port chosen here is not taken by a child before its owner binds it.
FREE_PORTS = range(21000, 32000)


class PortConflict(Exception):
    """A port is taken or given twice; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the services listen; 0 means any free port until the stack has started."""

    http: int = channels.GATEWAY_HTTP_PORT
    grpc: int = channels.GATEWAY_GRPC_PORT
    vision: int = channels.VISION_PORT
    decoder: int = channels.DECODER_PORT

    def named(self) -> Mapping[str, int]:
        """Each port by the name of the option that sets it."""
        return {
            "http-port": self.http,
            "grpc-port": self.grpc,
            "vision-port": self.vision,
            "decoder-port": self.decoder,
        }


ANY_FREE = Ports(http=0, grpc=0, vision=0, decoder=0)


def check_host(host: str) -> None:
    """Checks that a server could listen on an address.

    Raises:
        PortConflict: `host` is no address of this machine.
    """
    try:
        bind(host, 0).close()
    except BindError as error:
        raise PortConflict(str(error)) from error


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port of an address of this machine now."""
    try:
        bind(host, port).close()
    except BindError:
        return False
    return True


def settle_ports(host: str, ports: Ports) -> Ports:
    """Chooses a free port for each 0 and checks the others.

    Args:
        host: Address of the gateway; the tiers behind it listen on loopback.

    Raises:
        PortConflict: a port is taken or given twice, or `host` is not this machine's.
    """
    check_host(host)
    fixed = [port for port in ports.named().values() if port]
    if len(set(fixed)) < len(fixed):
        raise PortConflict("two services were given the same port")
    for name, port in ports.named().items():
        address = host if name in ("http-port", "grpc-port") else LOOPBACK
        if port and not is_free(address, port):
            raise PortConflict(
                f"port {port} is already in use; stop what listens there or give another --{name}"
            )
    free = _free_ports(host, excluded=frozenset(fixed))
    return Ports(
        http=ports.http or next(free),
        grpc=ports.grpc or next(free),
        vision=ports.vision or next(free),
        decoder=ports.decoder or next(free),
    )


def _free_ports(host: str, *, excluded: frozenset[int]) -> Iterator[int]:
    for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
        if port not in excluded and is_free(host, port) and is_free(LOOPBACK, port):
            yield port
    raise PortConflict("no free port was found")
