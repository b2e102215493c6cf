"""Ports, message limits and channel settings both ends of a wire agree on."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.wire.credentials import CredentialFiles, Credentials, Secrets, read_secrets
from protos.wire.renewing import RenewingChannel

GATEWAY_HTTP_PORT = 8000
GATEWAY_GRPC_PORT = 50050
VISION_PORT = 50051
DECODER_PORT = 50052
GATEWAY_METRICS_PORT = 9100
GATEWAY_ADMIN_PORT = 8001
VISION_METRICS_PORT = 9101
DECODER_METRICS_PORT = 9102

MIB = 1024 * 1024
CHUNK_BYTES = 1 * MIB  # most feature bytes in one message
SMALL_MESSAGE_BYTES = 8 * MIB  # prompts of 262144 tokens with positions fit
LARGE_MESSAGE_BYTES = 64 * MIB  # encoded images and patches

REQUEST_ID_KEY = "x-request-id"

Options = Sequence[tuple[str, Any]]


def channel_options(max_receive_bytes: int = SMALL_MESSAGE_BYTES) -> Options:
    """Settings of a client channel: size limits, keepalive, no proxy, no hidden retries."""
    return (
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", LARGE_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    )


def open_channel(
    address: str,
    files: CredentialFiles | None = None,
    *,
    max_receive_bytes: int = SMALL_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """A channel to another service: the one way in which services reach each other.

    Args:
        address: `host:port`.
        files: What to show and what to ask for, followed as the files change; None: a plain
            channel without a token.
        max_receive_bytes: Largest message that is taken.
    """
    options = list(channel_options(max_receive_bytes))
    if files is not None and files.credentials.server_name is not None:
        options.append(("grpc.ssl_target_name_override", files.credentials.server_name))

    def connect(secrets: Secrets) -> grpc.aio.Channel:
        if files is None or not files.credentials.tls:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, _shown(secrets), options=options)

    if files is None or not (files.credentials.tls or files.credentials.has_token):
        return connect(Secrets())
    return RenewingChannel(files, connect)


def open_blocking_channel(
    address: str, credentials: Credentials | None = None, *, max_receive_bytes: int
) -> grpc.Channel:
    """A channel for a command, which ends before its certificate does.

    Args:
        address: `host:port` of a gateway.
        credentials: What to show and what to ask for; None: a plain channel.
        max_receive_bytes: Largest message that is taken.

    Raises:
        CredentialError: a file of the credentials cannot be used.
    """
    options = list(channel_options(max_receive_bytes))
    if credentials is None or not credentials.tls:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, _shown(read_secrets(credentials)), options=options)


def _shown(secrets: Secrets) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(secrets.authority, secrets.key, secrets.certificate)


async def is_serving(channel: grpc.aio.Channel, *, timeout_s: float = 1.0) -> bool:
    """Asks grpc.health.v1 once; False when unreachable."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = await stub.Check(  # type: ignore[attr-defined]  # the stubs omit its methods
            health_pb2.HealthCheckRequest(), timeout=timeout_s
        )
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def wait_until_serving(
    channel: grpc.aio.Channel, *, timeout_s: float, interval_s: float = 0.1
) -> bool:
    """Polls grpc.health.v1 until it says SERVING or the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if await is_serving(channel):
            return True
        await asyncio.sleep(interval_s)
    return False
