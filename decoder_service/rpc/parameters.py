"""Sampling, stop and report parameters of a request, every field checked."""

from collections.abc import Sequence

from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sequence.request import ReportOptions
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Unsupported

MAX_LOGIT_BIASES = 300
MAX_STOP_TOKENS = 64
MAX_TOP_LOGPROBS = 20


def max_tokens(stop: decoder_pb2.StopConditions, room: int) -> int:
    """Most new tokens, never more than the `room` the context window leaves.

    Raises:
        InvalidRequest: less than one.
    """
    if not stop.HasField("max_tokens"):
        return room
    if stop.max_tokens < 1:
        raise InvalidRequest(
            f"stop_conditions.max_tokens is {stop.max_tokens}, expected at least 1",
            param="stop_conditions.max_tokens",
        )
    return min(stop.max_tokens, room)


def sampling_params(message: decoder_pb2.SamplingParams, vocab_size: int) -> SamplingParams:
    """Checks how tokens are to be chosen; defaults where unset.

    Raises:
        InvalidRequest: a value out of range.
    """
    given = {
        name: getattr(message, name)
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
        if message.HasField(name)
    }
    params = SamplingParams(**given, logit_bias=_logit_bias(message, vocab_size))
    check_range("sampling_params.temperature", params.temperature, 0, 2)
    check_range("sampling_params.top_p", params.top_p, 0, 1, open_low=True)
    check_range("sampling_params.top_k", params.top_k, 0, 2**31 - 1)
    check_range("sampling_params.min_p", params.min_p, 0, 1)
    check_range(
        "sampling_params.repetition_penalty", params.repetition_penalty, 0, 2, open_low=True
    )
    check_range("sampling_params.presence_penalty", params.presence_penalty, -2, 2)
    check_range("sampling_params.frequency_penalty", params.frequency_penalty, -2, 2)
    return params


def _logit_bias(
    message: decoder_pb2.SamplingParams, vocab_size: int
) -> tuple[tuple[int, float], ...]:
    field = "sampling_params.logit_bias"
    if len(message.logit_bias) > MAX_LOGIT_BIASES:
        raise InvalidRequest(
            f"{field} has {len(message.logit_bias)} entries, expected at most {MAX_LOGIT_BIASES}",
            param=field,
        )
    biases: dict[int, float] = {}
    for index, entry in enumerate(message.logit_bias):
        check_range(f"{field}[{index}].token_id", entry.token_id, 0, vocab_size - 1)
        check_range(f"{field}[{index}].bias", entry.bias, -100, 100)
        if entry.token_id in biases:
            raise InvalidRequest(
                f"{field}[{index}].token_id is {entry.token_id} for the second time, expected"
                " each token once",
                param=f"{field}[{index}].token_id",
            )
        biases[entry.token_id] = entry.bias
    return tuple(biases.items())


def check_range(
    field: str, value: float, low: float, high: float, *, open_low: bool = False
) -> None:
    """Checks one number.

    Raises:
        InvalidRequest: not in [low, high], or not in (low, high] with `open_low`.
    """
    # Written so that NaN fails: every comparison with it is false.
    if not (low <= value <= high) or (open_low and value == low):
        above = "above " if open_low else ""
        raise InvalidRequest(f"{field} is {value}, expected {above}{low} to {high}", param=field)


def stop_token_ids(
    stop: decoder_pb2.StopConditions, vocab_size: int, eos_ids: Sequence[int]
) -> frozenset[int]:
    """Tokens that end generation: the caller's and, unless ignored, the model's own.

    Raises:
        InvalidRequest: too many, or one out of range.
    """
    field = "stop_conditions.stop_token_ids"
    if len(stop.stop_token_ids) > MAX_STOP_TOKENS:
        raise InvalidRequest(
            f"{field} has {len(stop.stop_token_ids)} entries, expected at most {MAX_STOP_TOKENS}",
            param=field,
        )
    for index, token_id in enumerate(stop.stop_token_ids):
        check_range(f"{field}[{index}]", token_id, 0, vocab_size - 1)
    return frozenset((*stop.stop_token_ids, *(() if stop.ignore_eos else eos_ids)))


def report_options(message: decoder_pb2.ReportOptions, allow_logits: bool) -> ReportOptions:
    """Checks what is to be reported.

    Raises:
        InvalidRequest: a count out of range.
        Unsupported: logits where they are not allowed.
    """
    check_range("report_options.top_logprob_count", message.top_logprob_count, 0, MAX_TOP_LOGPROBS)
    if message.top_logprob_count and not message.logprobs:
        raise InvalidRequest(
            f"report_options.top_logprob_count is {message.top_logprob_count} without logprobs,"
            " expected 0",
            param="report_options.top_logprob_count",
        )
    if message.logits and not allow_logits:
        raise Unsupported(
            "report_options.logits is set, but this decoder does not report logits",
            param="report_options.logits",
        )
    return ReportOptions(
        logprobs=message.logprobs,
        top_logprob_count=message.top_logprob_count,
        logits=message.logits,
    )
