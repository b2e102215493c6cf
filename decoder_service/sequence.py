"""A sequence: what was asked for, and its life in the decoder. Plain data, no behaviour."""

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from decoder_service.sampling import Sampler, SamplingParams, TokenLogprobs

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The place of one picture in the prompt: placeholders `offset` to `end`."""

    offset: int
    length: int
    digest: bytes

    @property
    def end(self) -> int:
        """Index after the last placeholder."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What is reported beside the tokens."""

    logprobs: bool = False
    top_logprob_count: int = 0
    logits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A validated request; S is the prompt length.

    `max_tokens` is resolved: never beyond the context window. `stop_token_ids` holds the
    model's end-of-sequence tokens too, unless they are to be ignored.
    """

    request_id: str
    input_ids: npt.NDArray[np.int32]  # [S]
    position_ids: npt.NDArray[np.int32]  # [3, S]
    position_delta: int
    spans: tuple[Span, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    report: ReportOptions = field(default_factory=ReportOptions)
    cache_salt: bytes = b""
    priority: int = 0

    @property
    def prompt_length(self) -> int:
        """S."""
        return len(self.input_ids)


class Status(enum.Enum):
    """Where a sequence is in its life."""

    WAITING = enum.auto()  # no slot yet
    PREFILLING = enum.auto()  # holds a slot, prompt not complete
    DECODING = enum.auto()  # holds a slot, one token per step
    FINISHED = enum.auto()  # slot given back


class FinishReason(enum.Enum):
    """Why a sequence ended well."""

    STOP = enum.auto()
    LENGTH = enum.auto()


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
    """One sequence in the engine; only the engine's thread changes it.

    Attributes:
        slot: Row of the KV buffers it holds while running.
        kv_length: Tokens whose KV lies in the slot.
        features: Per span, float32 [1 + levels, N, hidden]; None until complete, and again
            once prefilled.
        complete_spans: How many leading spans have arrived in full.
        output_count: New tokens so far, an ending token included.
        next_token: The token the next decode step feeds.
        served_step: Last step that prefilled it, for fairness.
    """

    __slots__ = (
        "request",
        "sampler",
        "status",
        "slot",
        "kv_length",
        "features",
        "arrived_spans",
        "complete_spans",
        "output_count",
        "next_token",
        "served_step",
        "times",
    )

    def __init__(self, request: Request, *, arrival: float) -> None:
        self.request = request
        self.sampler = Sampler(request.sampling, request.input_ids, request.max_tokens)
        self.status = Status.WAITING
        self.slot: int | None = None
        self.kv_length = 0
        self.features: list[FloatArray | None] = [None] * len(request.spans)
        self.arrived_spans: set[int] = set()
        self.complete_spans = 0
        self.output_count = 0
        self.next_token = 0
        self.served_step = 0
        self.times = Times(arrival=arrival)

    def set_features(self, span_index: int, values: FloatArray, now: float) -> None:
        """Takes the complete features of one span."""
        self.features[span_index] = values
        self.arrived_spans.add(span_index)
        while self.complete_spans in self.arrived_spans:
            self.complete_spans += 1
        if self.complete_spans == len(self.request.spans):
            self.times.features_complete = now

    @property
    def prefillable_end(self) -> int:
        """Prompt length that can be prefilled with the features that have arrived."""
        spans = self.request.spans
        if self.complete_spans < len(spans):
            return spans[self.complete_spans].offset
        return self.request.prompt_length

    @property
    def prefillable_count(self) -> int:
        """Prompt tokens that can be prefilled now."""
        if self.status is not Status.PREFILLING:
            return 0
        return self.prefillable_end - self.kv_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One new token of the output."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    logits: FloatArray | None = None  # [vocab]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How and at what cost a sequence ended; times in milliseconds."""

    finish_reason: FinishReason
    stop_token_id: int | None
    prompt_tokens: int
    completion_tokens: int
    queue_ms: float
    features_ms: float
    prefill_ms: float
    first_token_ms: float
    decode_ms: float


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
        queue_ms=since_arrival_ms(times.first_prefill),
        features_ms=since_arrival_ms(times.features_complete) if sequence.request.spans else 0.0,
        prefill_ms=times.prefill_s * 1e3,
        first_token_ms=since_arrival_ms(times.first_token),
        decode_ms=(last - first) * 1e3,
    )
