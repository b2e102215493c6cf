"""How tokens are chosen: the wire's own message, filled by the client, then by the checkpoint.

Names, ranges and defaults are those of `protos.wire.sampling.PARAMETERS`.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from protos.bundle.manifest import BundleError
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest
from protos.wire.sampling import MAX_LOGIT_BIAS, PARAMETERS, check_range

_MAX_INT32 = 2**31 - 1


def sampling_params(
    values: Mapping[str, float | None], logit_bias: Mapping[int, float]
) -> decoder_pb2.SamplingParams:
    """A client's wishes as a message.

    Args:
        values: By name, those of `PARAMETERS` that the client may have set; None is unset.
        logit_bias: By token id.

    Raises:
        InvalidRequest: out of range. The message holds no number far outside, so it is looked at
            before; `protos.wire.sampling.check` is still to come.
    """
    params = decoder_pb2.SamplingParams()
    for name, value in values.items():
        if value is not None:
            PARAMETERS[name].check(name, value)
            setattr(params, name, value)
    for token_id, bias in logit_bias.items():
        check_range("logit_bias", token_id, 0, _MAX_INT32)
        check_range("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
        params.logit_bias.add(token_id=token_id, bias=bias)
    return params


def presets(generation: Mapping[str, Any]) -> decoder_pb2.SamplingParams:
    """What a checkpoint's generation_config says about sampling.

    `do_sample: false` means greedy. A seed is each request's own, never the checkpoint's.

    Raises:
        BundleError: a value is out of range or no number.
    """
    params = decoder_pb2.SamplingParams()
    values = {name: generation.get(name) for name in PARAMETERS if name != "seed"}
    if generation.get("do_sample") is False:
        values["temperature"] = 0.0
    for name, value in values.items():
        if value is None:
            continue
        try:
            PARAMETERS[name].check(name, value)
            setattr(params, name, value)
        except (InvalidRequest, TypeError) as error:
            raise BundleError(
                f"the bundle's generation defaults have a {name} that is not served: {value!r}"
            ) from error
    return params


def with_presets(
    params: decoder_pb2.SamplingParams, presets: decoder_pb2.SamplingParams
) -> decoder_pb2.SamplingParams:
    """A copy in which what the client left out is what the checkpoint presets.

    The checkpoint's authors tuned these values, so they win over OpenAI's 1.0 and 1.0;
    transformers' and vLLM's servers decide alike. What neither says stays unset, and the
    decoder's documented default (OpenAI's) applies.
    """
    filled = decoder_pb2.SamplingParams()
    filled.CopyFrom(presets)
    filled.MergeFrom(params)
    return filled


def with_seed(params: decoder_pb2.SamplingParams) -> decoder_pb2.SamplingParams:
    """A copy with a seed where tokens are drawn and the client gave none.

    The decoder would draw one; known here, it lets another decoder go on with the same answer.
    """
    is_greedy = params.HasField("temperature") and params.temperature == 0
    if params.HasField("seed") or is_greedy:
        return params
    seeded = decoder_pb2.SamplingParams()
    seeded.CopyFrom(params)
    seeded.seed = secrets.randbits(63)
    return seeded


def for_choice(params: decoder_pb2.SamplingParams, index: int) -> decoder_pb2.SamplingParams:
    """The sampling of one of several choices: a seed gives each choice one of its own."""
    if not params.HasField("seed") or index == 0:
        return params
    own = decoder_pb2.SamplingParams()
    own.CopyFrom(params)
    own.seed = (params.seed + index + 2**63) % 2**64 - 2**63
    return own
