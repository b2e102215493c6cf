"""The gateway's small pure parts: defaults, ids, keys, deadlines, choices, limits, timings."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from gateway.access.admission import Admission
from gateway.access.auth import check_key
from gateway.answer.merge import merged
from gateway.answer.timings import Stopwatch
from gateway.config import GatewayConfig
from gateway.http.body import body_size, parse_json
from gateway.request.deadlines import Patience, seconds_left
from gateway.request.ids import request_id
from gateway.request.sampling import for_choice, presets, with_presets
from protos.process.settings import SettingError
from protos.tandem.v1 import decoder_pb2, vision_pb2
from protos.tandem.v1.decoder_pb2 import SamplingParams
from protos.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    Reason,
    ServiceError,
    Unavailable,
)


def test_generation_config_fills_only_what_is_unset() -> None:
    preset = presets({"temperature": 0.7, "top_k": 20, "max_new_tokens": 5, "eos_token_id": [1]})
    filled = with_presets(SamplingParams(temperature=0.0, top_p=0.5), preset)
    assert filled == SamplingParams(temperature=0.0, top_p=0.5, top_k=20)


def test_a_checkpoint_that_does_not_sample_is_greedy() -> None:
    preset = presets({"do_sample": False, "temperature": 0.7})
    assert with_presets(SamplingParams(), preset) == SamplingParams(temperature=0.0)
    assert with_presets(SamplingParams(temperature=1.0), preset).temperature == 1.0


def test_each_choice_gets_a_seed_of_its_own_within_int64() -> None:
    seeds = [for_choice(SamplingParams(seed=2**63 - 1), index).seed for index in range(3)]
    assert seeds == [2**63 - 1, -(2**63), -(2**63) + 1]
    assert not for_choice(SamplingParams(), 2).HasField("seed")


def test_harmless_request_ids_are_kept() -> None:
    assert request_id("a-B_1.2:3") == "a-B_1.2:3"
    for odd in (None, "", "a b", "x" * 129, "a\nb", "é"):
        assert request_id(odd) != odd


def test_only_a_right_key_passes() -> None:
    assert check_key((), None) is None
    assert check_key(("k", "l"), "Bearer k") == "k"
    assert check_key(("k", "l"), "bearer l") == "l"
    for wrong in (None, "", "k", "Basic k", "Bearer kk", "Bearer é", "Bearer k,l"):
        with pytest.raises(ServiceError) as caught:
            check_key(("k", "l"), wrong)
        assert caught.value.reason is Reason.INVALID_API_KEY


def test_a_clients_deadline_only_shortens_ours() -> None:
    patience = Patience(request_s=300, stream_s=3600, stream_idle_s=60, encode_s=60)
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


def test_admission_counts_requests_and_bytes() -> None:
    admission = Admission(max_requests=2, max_bytes=100)
    with admission.slot(60):
        with pytest.raises(Overloaded):
            admission.slot(41).__enter__()
        with admission.slot(40):
            with pytest.raises(Overloaded):
                admission.slot(0).__enter__()
    assert admission.in_flight == 0
    admission.draining = True
    with pytest.raises(Unavailable) as caught:
        admission.slot(0).__enter__()
    assert caught.value.reason is Reason.DRAINING


@pytest.mark.parametrize("length", ["51", "x", "-1", "9" * 30, "٣"])
def test_announced_sizes_are_checked(length: str) -> None:
    with pytest.raises(InvalidRequest):
        body_size(length, limit=50)


def test_a_fitting_size_is_returned() -> None:
    assert body_size("50", limit=50) == 50
    assert body_size(None, limit=50) is None


@pytest.mark.parametrize(
    "body", [b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b'"' * 1_000_001]
)
def test_intricate_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_json(body)


def test_brackets_and_quotes_within_strings_are_text() -> None:
    text = '[{"' * 1000
    assert parse_json(b'["' + text.replace('"', '\\"').encode() + b'"]') == [text]
    assert parse_json(b"[" * 64 + b"]" * 64)


def test_transfer_is_what_the_vision_tier_did_not_spend() -> None:
    watch = Stopwatch(time.monotonic(), prepare_ms=1.5)
    watch.encoded(vision_pb2.EncodeSummary(queue_ms=1, preprocess_ms=2, encode_ms=30))
    watch.encoded(vision_pb2.EncodeSummary(queue_ms=5, preprocess_ms=10, encode_ms=4))
    watch.token()
    timings = watch.timings(decoder_pb2.GenerateTimings(features_ms=40, prefill_ms=9))
    assert timings.prepare_ms == 1.5
    assert (timings.preprocess_ms, timings.encode_ms) == (10, 30)
    assert timings.transfer_ms == 40 - 33
    assert timings.prefill_ms == 9
    assert timings.decode_ms == 0


def test_tokens_that_come_at_once_were_still_decoded_one_after_another() -> None:
    watch = Stopwatch(time.monotonic(), prepare_ms=1.0)
    watch.token()
    assert watch.timings(decoder_pb2.GenerateTimings(decode_ms=7.5)).decode_ms == 7.5
    assert watch.timings(None).decode_ms == 0


async def numbers(*values: int, failing: bool = False) -> AsyncGenerator[int, None]:
    for value in values:
        yield value
    if failing:
        raise Overloaded("full")


async def endless(closed: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        while True:
            yield 0
    finally:
        closed.set()


async def test_streams_are_interleaved_in_their_own_order() -> None:
    pairs = [pair async for pair in merged([numbers(1, 2, 3), numbers(4, 5), numbers()])]
    assert [value for index, value in pairs if index == 0] == [1, 2, 3]
    assert [value for index, value in pairs if index == 1] == [4, 5]


async def test_one_failing_stream_ends_the_others() -> None:
    closed = asyncio.Event()
    with pytest.raises(Overloaded):
        async for _ in merged([endless(closed), numbers(1, failing=True)]):
            pass
    assert closed.is_set()


async def test_closing_early_closes_every_stream() -> None:
    closed = [asyncio.Event(), asyncio.Event()]
    pairs = merged([endless(event) for event in closed])
    await anext(pairs)
    await pairs.aclose()
    # A stream that never began has nothing to close.
    assert any(event.is_set() for event in closed)


def test_only_loopback_names_are_served_on_loopback() -> None:
    assert GatewayConfig(bundle="b").served_hosts == ("127.0.0.1", "localhost", "::1")
    assert GatewayConfig(bundle="b", host="0.0.0.0").served_hosts is None
    named = GatewayConfig(bundle="b", allowed_hosts="a.example, b.example")
    assert named.served_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    "wrong", [{"max_in_flight": 0}, {"http_port": -1}, {"decoder": " , "}, {"prepare_threads": 0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int | str]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        GatewayConfig(bundle="b", **wrong)  # type: ignore[arg-type]
