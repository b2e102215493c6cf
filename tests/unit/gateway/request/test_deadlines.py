"""Deadlines, ours and the client's."""

import time

import pytest

from gateway.request.deadlines import Patience, seconds_left
from protos.wire.errors import DeadlineExceeded

PATIENCE = Patience(
    request_s=300, stream_s=3600, stream_idle_s=60, encode_s=60, encode_patches_per_s=25
)


def test_the_time_to_encode_grows_with_the_patches() -> None:
    assert PATIENCE.encode_within_s(0) == 60
    assert PATIENCE.encode_within_s(5000) == 260


def test_a_clients_deadline_only_shortens_ours() -> None:
    patience = PATIENCE
    now = time.monotonic()
    assert patience.deadline(now, stream=False).complete_by_s == now + 300
    streamed = patience.deadline(now, stream=True)
    assert (streamed.first_token_by_s, streamed.complete_by_s) == (now + 300, now + 3600)
    short = patience.deadline(now, stream=True, client_left_s=1.0)
    assert short.first_token_by_s == short.complete_by_s < now + 2
    endless = patience.deadline(now, stream=True, client_left_s=1e9)
    assert endless.complete_by_s == now + 3600


def test_no_time_left_is_an_error() -> None:
    assert 0 < seconds_left(time.monotonic() + 5) <= 5
    with pytest.raises(DeadlineExceeded):
        seconds_left(time.monotonic() - 1)
