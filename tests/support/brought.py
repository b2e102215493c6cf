"""Features for prepared prompts, as a caller with an encoder of its own brings them."""

from typing import Any

import numpy as np

from deploy.client import brought
from protos.tandem.v1 import gateway_pb2
from protos.wire.features import FloatArray


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
    prompt: gateway_pb2.PreparedPrompt, values: list[FloatArray], **options: Any
) -> list[gateway_pb2.ContinueRequest]:
    """Everything that is sent; see `brought`."""
    return list(brought(prompt, values, **options))
