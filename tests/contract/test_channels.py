"""Channel settings: gRPC ignores a name it does not know, so a misspelt one changes nothing."""

import importlib.util
from pathlib import Path

import pytest

from protos.process import server
from protos.wire import channels

NAMES = sorted({name for name, _ in (*channels.channel_options(), *server.server_options(1))})


@pytest.fixture(scope="module")
def library() -> bytes:
    """gRPC's compiled core, which holds the name of every option it reads."""
    found = importlib.util.find_spec("grpc._cython.cygrpc")
    assert found is not None and found.origin is not None
    return Path(found.origin).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_grpc_knows_the_option(library: bytes, name: str) -> None:
    assert name.encode() in library


def test_a_server_bears_the_pings_of_our_clients() -> None:
    client, serving = dict(channels.channel_options()), dict(server.server_options(1))
    allowed_ms = serving["grpc.http2.min_ping_interval_without_data_ms"]
    assert client["grpc.keepalive_time_ms"] > allowed_ms
