"""What a client asks, as either door converts it, and the same as a job with its owner and time."""

from dataclasses import dataclass, field

from gateway.request.constraint import ConstraintKind, ConstraintSpec
from gateway.request.conversation import NOTHING_SAID, Conversation, PlainPrompt
from gateway.request.deadlines import Deadline
from gateway.request.tools import Tool, ToolChoice, ToolMode, callable_tools, tool_of
from protos.tandem.v1 import decoder_pb2
from protos.wire import sampling
from protos.wire.errors import InvalidRequest, Unsupported
from protos.wire.sampling import (
    MAX_PRIORITY,
    MAX_STOP_TOKENS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    check_range,
)

MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 256
MAX_CHOICES = 4
MAX_CACHE_SALT_CHARS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When an answer ends, besides end-of-sequence tokens and the context window.

    `max_tokens_field` is the name under which the client gave `max_tokens`, for errors; where the
    answer `may_be_cut`, a context window that ends sooner is none. Before `min_tokens` tokens
    nothing ends it but the end of a form it is held to.
    """

    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    may_be_cut: bool = False
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0

    def check(self, *, vocab_size: int) -> None:
        """Checks every range.

        Raises:
            InvalidRequest: names the parameter, the range and the value.
        """
        if self.max_tokens is not None:
            check_range(self.max_tokens_field, self.max_tokens, 1, MAX_TOKENS)
        check_range("min_tokens", self.min_tokens, 0, self.max_tokens or MAX_TOKENS)
        _check_count("stop_token_ids", len(self.stop_token_ids), MAX_STOP_TOKENS)
        for token in self.stop_token_ids:
            check_range("stop_token_ids", token, 0, vocab_size - 1)
        _check_count("stop", len(self.stop_strings), MAX_STOP_STRINGS)
        for text in self.stop_strings:
            if not 1 <= len(text) <= MAX_STOP_STRING_CHARS:
                raise InvalidRequest(
                    f"a string of stop has {len(text)} characters, expected 1 to"
                    f" {MAX_STOP_STRING_CHARS}",
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
        check_range("top_logprobs", self.top_logprob_count, 0, MAX_TOP_LOGPROBS)
        if self.top_logprob_count and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One conversation and how to answer it, in a client's own terms.

    Attributes:
        model: Name of the model; None or empty asks for the one that is served.
        plain: The prompt itself, instead of a conversation.
        first_choice: Place of its first choice among those of a request with several prompts.
        constraint: What the answer must look like; None for anything.
        tool_choice: What the answer may do with the conversation's tools.
        priority: Lower is handled earlier, as vLLM has it; None where it is not given.
        cache_salt: Parts requests that must not share cached prefixes; empty adds nothing.
        choice_count: Answers to give.
        stream: Whether the answer is sent as it grows.
    """

    model: str | None = None
    conversation: Conversation = NOTHING_SAID
    plain: PlainPrompt | None = None
    first_choice: int = 0
    sampling: decoder_pb2.SamplingParams = field(default_factory=decoder_pb2.SamplingParams)
    stopping: Stopping = Stopping()
    reporting: Reporting = Reporting()
    constraint: ConstraintSpec | None = None
    tool_choice: ToolChoice = ToolChoice()
    priority: int | None = None
    cache_salt: str = ""
    choice_count: int = 1
    stream: bool = False

    def check(self, *, vocab_size: int) -> None:
        """Checks everything but the conversation, which `PromptBuilder.prepare` checks.

        Raises:
            InvalidRequest: a parameter is out of range.
            Unsupported: a combination is not served.
        """
        sampling.check(self.sampling, vocab_size=vocab_size)
        self.stopping.check(vocab_size=vocab_size)
        self.reporting.check()
        self._check_constraint()
        self._check_tools()
        if self.priority is not None:
            check_range("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        check_range("n", self.choice_count, 1, MAX_CHOICES)
        if self.reporting.logits and self.choice_count > 1:
            raise Unsupported("logits are reported for one choice only", param="n")

    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that the answer may call.

        Raises:
            InvalidRequest: a tool is malformed, or the choice does not fit the tools.
        """
        specs = enumerate(self.conversation.tools)
        tools = [tool_of(spec, f"tools[{at}]") for at, spec in specs]
        return callable_tools(tools, self.tool_choice)

    def _check_tools(self) -> None:
        if not self.callable_tools():
            return
        form = self.constraint
        if form is not None and form.kind not in (
            ConstraintKind.JSON_SCHEMA,
            ConstraintKind.JSON_OBJECT,
        ):
            raise Unsupported(
                f"{form.field} is not supported together with tools, JSON alone is",
                param=form.field,
            )
        if self.stopping.ignore_eos and self.tool_choice.mode is ToolMode.REQUIRED:
            raise InvalidRequest(
                "ignore_eos is set with a call that is required and has an end", param="ignore_eos"
            )

    def _check_constraint(self) -> None:
        if self.constraint is None:
            return
        self.constraint.check()
        if self.stopping.ignore_eos:
            raise InvalidRequest(
                f"ignore_eos is set with {self.constraint.field}, whose end it would pass",
                param="ignore_eos",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatJob:
    """A question at work.

    Attributes:
        request_id: Travels with every call made for it.
        sampling: The question's, with the checkpoint's presets where it leaves something out.
        cache_salt: Requests share cached prefixes only with the same one; see
            `gateway.access.tenants`.
        tenant: Shares the decoders evenly with others; see `gateway.access.tenants`.
        priority: The question's, or its key's; lower is handled earlier.
        arrived_s: When the request arrived, `time.monotonic()` seconds.
    """

    request_id: str
    question: Question
    sampling: decoder_pb2.SamplingParams
    cache_salt: bytes
    tenant: bytes = b""
    priority: int = 0
    arrived_s: float
    deadline: Deadline


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest(
            f"{field} has {count} entries, expected at most {most}",
            param=field,
        )
