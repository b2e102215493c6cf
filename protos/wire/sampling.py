"""Sampling parameters: the one table of ranges and defaults that both ends of the wire read.

A new parameter is a field of `SamplingParams` in decoder.proto, a row here, a field of the HTTP
schema, and the code that applies it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest

MAX_LOGIT_BIASES = 300
MAX_LOGIT_BIAS = 100
MAX_STOP_TOKENS = 64
MAX_TOP_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1
MAX_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number of `SamplingParams`: its range, and its value where nobody gives one."""

    low: float
    high: float
    default: float | None
    open_low: bool = False  # `low` itself is not allowed

    def check(self, field: str, value: float) -> None:
        """Checks one value.

        Raises:
            InvalidRequest: out of range, or not a number.
        """
        check_range(field, value, self.low, self.high, open_low=self.open_low)


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "temperature": Parameter(0, 2, 1.0),
        "top_p": Parameter(0, 1, 1.0),
        "top_k": Parameter(0, MAX_TOKENS, 0),
        "min_p": Parameter(0, 1, 0.0),
        "seed": Parameter(-(2**63), 2**63 - 1, None),
        "repetition_penalty": Parameter(0, 2, 1.0, open_low=True),
        "presence_penalty": Parameter(-2, 2, 0.0),
        "frequency_penalty": Parameter(-2, 2, 0.0),
    }
)


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


def check(params: decoder_pb2.SamplingParams, *, vocab_size: int, prefix: str = "") -> None:
    """Checks every parameter that is set.

    Args:
        params: As it crosses the wire.
        vocab_size: Tokens of the model; `logit_bias` may name these.
        prefix: What stands before a parameter's name where the caller's client wrote it, for
            example "sampling_params.".

    Raises:
        InvalidRequest: names the parameter, the range and the value.
    """
    for name, parameter in PARAMETERS.items():
        if params.HasField(name):
            parameter.check(f"{prefix}{name}", getattr(params, name))
    field = f"{prefix}logit_bias"
    if len(params.logit_bias) > MAX_LOGIT_BIASES:
        raise InvalidRequest(
            f"{field} has {len(params.logit_bias)} entries, expected at most {MAX_LOGIT_BIASES}",
            param=field,
        )
    seen = set[int]()
    for index, entry in enumerate(params.logit_bias):
        # The wire has a list, whose entries have places; what HTTP clients write has none.
        place = f"{field}[{index}]" if prefix else field
        token, bias = (f"{place}.token_id", f"{place}.bias") if prefix else (place, place)
        check_range(token, entry.token_id, 0, vocab_size - 1)
        check_range(bias, entry.bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
        if entry.token_id in seen:
            raise InvalidRequest(
                f"{token} is {entry.token_id} for the second time, expected each token once",
                param=token,
            )
        seen.add(entry.token_id)
