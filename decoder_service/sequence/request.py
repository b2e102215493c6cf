"""What the engine is asked for, and what it answers."""

import enum
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.logprobs import TokenLogprobs
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Mask
from protos.tandem.v1 import decoder_pb2

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The place of one image in the prompt: placeholders `offset` to `end`."""

    offset: int
    length: int
    digest: bytes

    @property
    def end(self) -> int:
        """Index after the last placeholder."""
        return self.offset + self.length


class Constraint(Mask, Protocol):
    """What the output is held to, and how far it is; `grammar.state.GrammarState` behind it."""

    def accept(self, token_id: int) -> None:
        """Takes the token that was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What is reported beside the tokens."""

    logprobs: bool = False
    top_logprob_count: int = 0
    logits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A validated request; S is the prompt length, R that of the output that is there already.

    `max_tokens` is resolved: more than R, never beyond the context window. `stop_token_ids` holds
    the model's end-of-sequence tokens too, unless they are to be ignored; none of them comes before
    `min_tokens` tokens of output, and none is in `output_ids`.
    """

    request_id: str
    input_ids: IntArray  # [S]
    position_ids: IntArray  # [3, S]
    position_delta: int
    spans: tuple[Span, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    report: ReportOptions = field(default_factory=ReportOptions)
    cache_salt: bytes = b""
    tenant: bytes = b""  # shares slots and places in the queue evenly with others
    priority: int = 0
    constraint: Constraint | None = None  # behind `output_ids`
    output_ids: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))  # [R]

    @property
    def prompt_length(self) -> int:
        """S."""
        return len(self.input_ids)


class FinishReason(enum.Enum):
    """Why a sequence ended well."""

    STOP = enum.auto()
    LENGTH = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One new token of the output."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    logits: FloatArray | None = None  # [vocab]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How and at what cost a sequence ended."""

    finish_reason: FinishReason
    stop_token_id: int | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    # As it travels: nobody between the sequence and its client computes with it.
    timings: decoder_pb2.GenerateTimings
