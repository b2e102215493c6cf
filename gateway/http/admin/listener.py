"""The admin port: who may ask there, and its server."""

from socket import socket

from gateway.access.auth import check_key
from gateway.config import GatewayConfig
from gateway.http.admin.routes import Admin
from gateway.http.guard import Guard
from gateway.http.serving.listener import Listener


def admin_listener(admin: Admin, config: GatewayConfig, listening: socket) -> Listener:
    """Serves the routes on a bound socket.

    Args:
        admin: The routes.
        config: Its `admin_key`, where there is one, is what every request must carry.
        listening: A socket of the admin port.
    """
    keys = () if config.admin_key is None else (config.admin_key,)

    def authorize(authorization: str | None) -> None:
        check_key(keys, authorization)

    guarded = Guard(
        admin.app(),
        authorize=authorize,
        hosts=config.admin_hosts,
        origins=(),
        max_header_bytes=config.max_header_bytes,
    )
    return Listener(
        guarded,
        listening,
        max_header_bytes=config.max_header_bytes,
        slow_client_s=config.slow_client_s,
        drain_timeout_s=1.0,
    )
