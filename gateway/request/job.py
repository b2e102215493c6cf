"""What a client asks for: one conversation and how to answer it. Both doors build it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.request.constraint import ConstraintSpec
from gateway.request.conversation import Conversation
from gateway.request.deadlines import Deadline
from protos.wire.errors import InvalidRequest, Unsupported

MAX_TOP_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 256
MAX_STOP_TOKENS = 64
MAX_LOGIT_BIASES = 300
MAX_CHOICES = 4
MAX_TOKENS = 2**31 - 1
MAX_CACHE_SALT_CHARS = 256

# name: (smallest, largest, smallest itself allowed)
_RANGES: Mapping[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, True),
    "top_p": (0, 1, False),
    "top_k": (0, MAX_TOKENS, True),
    "min_p": (0, 1, True),
    "seed": (-(2**63), 2**63 - 1, True),
    "repetition_penalty": (0, 2, False),
    "presence_penalty": (-2, 2, True),
    "frequency_penalty": (-2, 2, True),
}

# What generation_config.json may preset, by our names.
_DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; None is unset. Ranges and meaning as in `SamplingParams`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def with_defaults(self, generation: Mapping[str, Any]) -> "Sampling":
        """Fills what the client left out from the checkpoint's generation_config.

        The checkpoint's authors tuned these values, so they win over OpenAI's 1.0 and 1.0;
        transformers' and vLLM's servers decide alike. `do_sample: false` means greedy. What
        neither says stays unset, and the decoder's documented default (OpenAI's) applies.
        """
        presets = {name: generation.get(name) for name in _DEFAULTED}
        if generation.get("do_sample") is False:
            presets["temperature"] = 0.0
        filled = {
            name: value
            for name, value in presets.items()
            if value is not None and getattr(self, name) is None
        }
        return dataclasses.replace(self, **filled)

    def check(self, *, vocab_size: int) -> None:
        """Checks every range.

        Raises:
            InvalidRequest: names the parameter, the range and the value.
        """
        for name, (low, high, closed) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and (closed or value > low)):
                bracket = "[" if closed else "("
                raise InvalidRequest(
                    f"{name} must be in {bracket}{low}, {high}], got {value}", param=name
                )
        if len(self.logit_bias) > MAX_LOGIT_BIASES:
            raise InvalidRequest(
                f"logit_bias has {len(self.logit_bias)} entries, at most {MAX_LOGIT_BIASES}"
                " are allowed",
                param="logit_bias",
            )
        for token, bias in self.logit_bias.items():
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token}, expected [0, {vocab_size})",
                    param="logit_bias",
                )
            if not -100 <= bias <= 100:
                raise InvalidRequest(
                    f"logit_bias of token {token} must be in [-100, 100], got {bias}",
                    param="logit_bias",
                )

    def for_choice(self, index: int) -> "Sampling":
        """The sampling of one of several choices: a seed gives each choice one of its own."""
        if self.seed is None or index == 0:
            return self
        seed = (self.seed + index + 2**63) % 2**64 - 2**63
        return dataclasses.replace(self, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When an answer ends, besides end-of-sequence tokens and the context window."""

    max_tokens: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False

    def check(self, *, vocab_size: int) -> None:
        """Checks every range.

        Raises:
            InvalidRequest: names the parameter, the range and the value.
        """
        if self.max_tokens is not None and not 1 <= self.max_tokens <= MAX_TOKENS:
            raise InvalidRequest(
                f"max_tokens must be in [1, {MAX_TOKENS}], got {self.max_tokens}",
                param="max_tokens",
            )
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise InvalidRequest(
                f"stop_token_ids has {len(self.stop_token_ids)} entries, at most"
                f" {MAX_STOP_TOKENS} are allowed",
                param="stop_token_ids",
            )
        for token in self.stop_token_ids:
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"stop_token_ids names token {token}, expected [0, {vocab_size})",
                    param="stop_token_ids",
                )
        self._check_strings()

    def _check_strings(self) -> None:
        if len(self.stop_strings) > MAX_STOP_STRINGS:
            raise InvalidRequest(
                f"stop has {len(self.stop_strings)} strings, at most {MAX_STOP_STRINGS}"
                " are allowed",
                param="stop",
            )
        for text in self.stop_strings:
            if not 1 <= len(text) <= MAX_STOP_STRING_CHARS:
                raise InvalidRequest(
                    f"a string of stop has {len(text)} characters, expected"
                    f" [1, {MAX_STOP_STRING_CHARS}]",
                    param="stop",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What is reported beside the text."""

    logprobs: bool = False
    top_logprob_count: int = 0
    logits: bool = False

    def check(self) -> None:
        """Checks every range.

        Raises:
            InvalidRequest: names the parameter, the range and the value.
        """
        if not 0 <= self.top_logprob_count <= MAX_TOP_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs must be in [0, {MAX_TOP_LOGPROBS}], got {self.top_logprob_count}",
                param="top_logprobs",
            )
        if self.top_logprob_count and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatJob:
    """One conversation to answer; `arrived_s` is a `time.monotonic()` moment.

    `constraint` is what the answer must look like, None for anything. Requests share cached
    prefixes only with the same `cache_salt`; see `gateway.access.tenants`.
    """

    request_id: str
    conversation: Conversation
    sampling: Sampling = Sampling()
    stopping: Stopping = Stopping()
    reporting: Reporting = Reporting()
    constraint: ConstraintSpec | None = None
    cache_salt: bytes = b""
    choice_count: int = 1
    arrived_s: float
    deadline: Deadline

    def check(self, *, vocab_size: int) -> None:
        """Checks everything but the conversation, which `PromptBuilder.prepare` checks.

        Raises:
            InvalidRequest: a parameter is out of range.
            Unsupported: a combination is not served.
        """
        self.sampling.check(vocab_size=vocab_size)
        self.stopping.check(vocab_size=vocab_size)
        self.reporting.check()
        self._check_constraint()
        if not 1 <= self.choice_count <= MAX_CHOICES:
            raise InvalidRequest(
                f"n must be in [1, {MAX_CHOICES}], got {self.choice_count}", param="n"
            )
        if self.reporting.logits and self.choice_count > 1:
            raise Unsupported("logits are reported for one choice only", param="n")

    def _check_constraint(self) -> None:
        if self.constraint is None:
            return
        self.constraint.check()
        if self.stopping.ignore_eos:
            raise InvalidRequest(
                f"ignore_eos is set with {self.constraint.field}, whose end it would pass",
                param="ignore_eos",
            )
