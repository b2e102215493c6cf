"""Whether a Ray cluster lets everybody in. Who may join may run programs on every host of it."""

import ipaddress
import os
from collections.abc import Mapping
from typing import Any

import grpc

from protos.process.settings import SettingError

_ASKED = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ANSWER_S = 10.0


def check_closed(
    address: str, *, allow_insecure: bool, environ: Mapping[str, str] = os.environ
) -> None:
    """Refuses a cluster beyond loopback that asks for neither a token nor certificates.

    Args:
        address: HOST:PORT of its head.
        allow_insecure: The setting; join all the same.
        environ: What Ray reads its own settings from.

    Raises:
        SettingError: one line that says which setting opens it, and which secures it.
    """
    host = address.rpartition(":")[0].strip("[]")
    # With Ray's TLS both ends show certificates, and who has none does not get as far as a token.
    if allow_insecure or is_loopback(host) or has_tls(environ) or asks_for_token(address):
        return
    raise SettingError(
        f"the Ray cluster at {address} lets everybody in: set RAY_AUTH_MODE=token (and RAY_USE_TLS)"
        " on all its nodes and here to secure it, or allow_insecure to join it as it is"
    )


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def has_tls(environ: Mapping[str, str]) -> bool:
    """Whether Ray is told to use certificates, in the spellings that it takes."""
    return environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def asks_for_token(address: str) -> bool:
    """Whether a head refuses a question that carries no token; it is asked without one."""
    with grpc.insecure_channel(address) as channel:
        try:
            ask: Any = channel.unary_unary(_ASKED)
            ask(b"", timeout=_ANSWER_S)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False
