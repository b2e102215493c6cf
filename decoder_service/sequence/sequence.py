"""A sequence: one request's life in the decoder."""

import enum
import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.sampler import Sampler
from decoder_service.sequence.content import Content
from decoder_service.sequence.request import Completion, FinishReason, Request
from protos.tandem.v1 import decoder_pb2

FloatArray = npt.NDArray[np.float32]

# Begins digests we make; longer than a caller's may be, so that none of theirs is like it.
_PRIVATE = b"private" * 10


class Status(enum.Enum):
    """Where a sequence is in its life."""

    WAITING = enum.auto()  # no slot yet, or no longer
    PREFILLING = enum.auto()  # holds a slot, KV of what it has not complete
    DECODING = enum.auto()  # holds a slot, one token per step
    FINISHED = enum.auto()  # slot given back


@dataclass(slots=True, kw_only=True)
class Times:
    """Moments of a sequence's life, `time.monotonic` seconds; None until they come."""

    arrival: float
    features_complete: float | None = None
    first_prefill: float | None = None
    prefill_s: float = 0.0
    first_token: float | None = None
    last_token: float | None = None


class Sequence:
    """One sequence in the engine; only who holds the engine's residency changes it.

    Its history is the prompt and the output so far. Whether KV of the history is computed for
    the first time or again, after it has lost its slot or its decoder, is the same thing: the
    token behind the history is chosen once KV of all of it is there.

    Attributes:
        spans: The request's spans; one without a digest has got one that nothing else has.
        token_ids: int32 [S + max_tokens], the history and room for the rest.
        history_length: Tokens of the history.
        kv_length: Tokens whose KV lies in the slot; while it decodes, all but the last.
        slot: Row of the KV buffers it holds while running.
        features: Per span, float32 [1 + levels, N, hidden]; None until complete, and again
            once they are never needed any more.
        missing_features: Needed spans that have not arrived.
        anchor: KV of so many leading tokens cannot be computed again, because features within
            are not there: it is never given up while the sequence lives.
        was_preempted: Whether it has lost its slot and not got one again.
        cached_tokens: Prompt tokens whose KV was there when it got its first slot.
        output_count: Tokens of the output so far, an ending token included.
        served_step: Last step that prefilled it, for fairness.
        drafted_tokens, accepted_tokens: Drafted ahead, and confirmed.
    """

    __slots__ = (
        "request",
        "sampler",
        "status",
        "spans",
        "token_ids",
        "history_length",
        "kv_length",
        "slot",
        "features",
        "missing_features",
        "anchor",
        "was_preempted",
        "cached_tokens",
        "output_count",
        "served_step",
        "drafted_tokens",
        "accepted_tokens",
        "times",
    )

    def __init__(self, request: Request, *, arrival: float) -> None:
        self.request = request
        self.sampler = Sampler(request.sampling, request.input_ids, request.max_tokens)
        self.status = Status.WAITING
        self.spans = tuple(
            span if span.digest else replace(span, digest=_PRIVATE + os.urandom(16))
            for span in request.spans
        )
        self.token_ids = np.empty(request.prompt_length + request.max_tokens, dtype=np.int32)
        self.token_ids[: request.prompt_length] = request.input_ids
        self.history_length = request.prompt_length + len(request.output_ids)
        self.token_ids[request.prompt_length : self.history_length] = request.output_ids
        self.sampler.resume(request.output_ids)
        self.kv_length = 0
        self.slot: int | None = None
        self.features: list[FloatArray | None] = [None] * len(request.spans)
        self.missing_features = len(request.spans)
        self.anchor = 0
        self.was_preempted = False
        self.cached_tokens = 0
        self.output_count = len(request.output_ids)
        self.served_step = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.times = Times(arrival=arrival)

    def append(self, token_id: int) -> None:
        """Adds a token to the history."""
        self.token_ids[self.history_length] = token_id
        self.history_length += 1

    def set_features(self, span_index: int, values: FloatArray, now: float) -> None:
        """Takes the complete features of one span."""
        if self.spans[span_index].end > self.anchor:
            self.features[span_index] = values
        self.missing_features -= 1
        if self.missing_features == 0:
            self.times.features_complete = now

    def position_ids(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Positions of some tokens of the history, int32 [3, stop - start]."""
        length = self.request.prompt_length
        prompt = self.request.position_ids[:, start : min(stop, length)]
        if stop <= length:
            return prompt
        output = np.arange(max(start, length), stop, dtype=np.int32) + self.request.position_delta
        return np.concatenate([prompt, np.tile(output.astype(np.int32), (3, 1))], axis=1)

    def content(self, length: int) -> Content:
        """What KV of the first `length` tokens of the history depends on."""
        return Content(
            token_ids=self.token_ids[:length],
            position_ids=self.position_ids(0, length),
            spans=self.spans,
            salt=self.request.cache_salt,
        )

    @property
    def held_slot(self) -> int:
        """The slot of a sequence that must hold one."""
        assert self.slot is not None, "the sequence holds no slot"
        return self.slot

    @property
    def shareable_length(self) -> int:
        """Tokens whose KV can be of use to other sequences."""
        private = (s.offset for s in self.spans if s.digest.startswith(_PRIVATE))
        return min(self.kv_length, next(private, self.kv_length))

    @property
    def prefillable_end(self) -> int:
        """History that can be prefilled with the features that are there.

        Prompt and output are never in one chunk: the output is computed as it was decoded.
        """
        for span, values in zip(self.spans, self.features, strict=True):
            if values is None and span.end > self.kv_length:
                return max(span.offset, self.kv_length)
        length = self.request.prompt_length
        return self.history_length if self.kv_length >= length else length

    @property
    def prefillable_count(self) -> int:
        """Tokens that can be prefilled now."""
        if self.status is not Status.PREFILLING:
            return 0
        return self.prefillable_end - self.kv_length


def completion(
    sequence: Sequence, finish_reason: FinishReason, stop_token_id: int | None
) -> Completion:
    """The completion of a sequence whose last token has just been chosen."""
    times = sequence.times

    def since_arrival_ms(moment: float | None) -> float:
        return 0.0 if moment is None else (moment - times.arrival) * 1e3

    first = times.arrival if times.first_token is None else times.first_token
    last = first if times.last_token is None else times.last_token
    return Completion(
        finish_reason=finish_reason,
        stop_token_id=stop_token_id,
        prompt_tokens=sequence.request.prompt_length,
        completion_tokens=sequence.output_count,
        cached_tokens=sequence.cached_tokens,
        drafted_tokens=sequence.drafted_tokens,
        accepted_tokens=sequence.accepted_tokens,
        timings=decoder_pb2.GenerateTimings(
            queue_ms=since_arrival_ms(times.first_prefill),
            features_ms=since_arrival_ms(times.features_complete),
            prefill_ms=times.prefill_s * 1e3,
            first_token_ms=since_arrival_ms(times.first_token),
            decode_ms=(last - first) * 1e3,
        ),
    )
