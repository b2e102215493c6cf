"""Where the time of one answer goes, as the gateway and the tiers behind it measured it."""

import time

from protos.tandem.v1 import decoder_pb2, gateway_pb2, vision_pb2


class Stopwatch:
    """Notes the moments of one answer. Times are `time.monotonic()` seconds."""

    def __init__(self, arrived_s: float, *, prepare_ms: float) -> None:
        self._arrived_s = arrived_s
        self._prepare_ms = prepare_ms
        self._opened_s = time.monotonic()
        self._fed_s: float | None = None
        self._first_token_s: float | None = None
        self._last_token_s: float | None = None
        self._encodings: list[vision_pb2.EncodeSummary] = []

    @property
    def has_first_token(self) -> bool:
        """Whether a token has come."""
        return self._first_token_s is not None

    def encoded(self, summary: vision_pb2.EncodeSummary) -> None:
        """One image's features are all passed on."""
        self._encodings.append(summary)
        self._fed_s = time.monotonic()

    def token(self) -> None:
        """A token came."""
        self._last_token_s = time.monotonic()
        if self._first_token_s is None:
            self._first_token_s = self._last_token_s

    def timings(self, decoder: decoder_pb2.GenerateTimings | None) -> gateway_pb2.ChatTimings:
        """The summary.

        Args:
            decoder: What the decoder measured; None when a stop string ended the answer before
                the decoder did, which leaves the time of its prefill unknown (0).
        """
        return gateway_pb2.ChatTimings(
            prepare_ms=self._prepare_ms,
            preprocess_ms=max((image.preprocess_ms for image in self._encodings), default=0.0),
            encode_ms=max((image.encode_ms for image in self._encodings), default=0.0),
            transfer_ms=self._transfer_ms(decoder),
            queue_ms=0.0 if decoder is None else decoder.queue_ms,
            prefill_ms=0.0 if decoder is None else decoder.prefill_ms,
            first_token_ms=self._between_ms(self._arrived_s, self._first_token_s),
            decode_ms=self._decode_ms(decoder),
        )

    def _decode_ms(self, decoder: decoder_pb2.GenerateTimings | None) -> float:
        """From the first token to the last: the decoder knows best, several may come at once."""
        if decoder is not None and decoder.decode_ms > 0:
            return decoder.decode_ms
        return self._between_ms(self._first_token_s, self._last_token_s)

    def _transfer_ms(self, decoder: decoder_pb2.GenerateTimings | None) -> float:
        """What the features' arrival took beyond the slowest image's work in the vision tier.

        The decoder knows best when the last feature arrived; without its word, the moment of
        the last write counts.
        """
        if not self._encodings:
            return 0.0
        arrival_ms = self._between_ms(self._opened_s, self._fed_s)
        if decoder is not None and decoder.features_ms > 0:
            arrival_ms = decoder.features_ms
        slowest_ms = max(
            image.queue_ms + image.preprocess_ms + image.encode_ms for image in self._encodings
        )
        return max(0.0, arrival_ms - slowest_ms)

    @staticmethod
    def _between_ms(start_s: float | None, end_s: float | None) -> float:
        return 0.0 if start_s is None or end_s is None else (end_s - start_s) * 1e3
