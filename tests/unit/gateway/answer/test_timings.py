"""Where the time of an answer goes."""

import time

from gateway.answer.timings import Stopwatch
from protos.tandem.v1 import decoder_pb2, vision_pb2


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
