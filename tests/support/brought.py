"""Calls of `Continue`: a prepared prompt and features, as a caller with an encoder sends them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protos.tandem.v1 import decoder_pb2, gateway_pb2, tensor_pb2
from protos.wire import features

FloatArray = npt.NDArray[np.float32]


def some_features(prompt: gateway_pb2.PreparedPrompt, *, seed: int = 0) -> list[FloatArray]:
    """Noise for each span, float32 [levels, N, H]."""
    random = np.random.default_rng(seed)
    return [
        random.standard_normal(
            (prompt.level_count, span.length, prompt.hidden_size), dtype=np.float32
        )
        for span in prompt.visual_spans
    ]


def messages(
    prompt: gateway_pb2.PreparedPrompt,
    values: Sequence[FloatArray],
    *,
    form: str = "float32",
    **fields: Any,
) -> list[gateway_pb2.ContinueRequest]:
    """Everything that is sent; `fields` are those of ContinueStart."""
    chunks = [list(features.to_chunks(each, form)) for each in values]
    start = gateway_pb2.ContinueStart(
        prompt=prompt, span_features=[named(each) for each in chunks], **fields
    )
    return [gateway_pb2.ContinueRequest(start=start), *_features(chunks)]


def named(chunks: Sequence[tensor_pb2.FeatureChunk]) -> gateway_pb2.BroughtFeatures:
    """What the start says of the features of one span."""
    return gateway_pb2.BroughtFeatures(dtype=chunks[0].values.dtype, digest=features.digest(chunks))


def _features(
    chunks: Sequence[Sequence[tensor_pb2.FeatureChunk]],
) -> Iterator[gateway_pb2.ContinueRequest]:
    for index, each in enumerate(chunks):
        for chunk in each:
            brought = decoder_pb2.SpanFeatures(span_index=index, chunk=chunk)
            yield gateway_pb2.ContinueRequest(features=brought)
