"""Continue over the real services, with features of transformers' own tower."""

from typing import Any

import numpy as np
import pytest

from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import InvalidRequest
from protos.wire.features import FloatArray
from tests.support.brought import messages
from tests.support.bundles import bundle, checkpoint
from tests.support.oracle import oracle
from tests.support.stack import ServedStack, Stacks, greedy_request
from tests.support.talks import FIVE_IMAGES, Talk

TOKENS = 32


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def features() -> list[FloatArray]:
    """Of each image of the talk, float32 [levels, N, H], as `model.visual` gives them."""
    reference = oracle(checkpoint("tied"))
    prepared = reference.prepare(FIVE_IMAGES.to_transformers(), FIVE_IMAGES.images())
    assert prepared.pixel_values is not None and prepared.image_grid_thw is not None
    grids = prepared.image_grid_thw
    ends = np.cumsum(grids.prod(axis=1))[:-1]
    pixels = np.split(prepared.pixel_values, ends)
    found = []
    for each, grid in zip(pixels, grids, strict=True):
        encoded = reference.features(each, grid[None])
        found.append(np.stack([encoded.embeddings, *encoded.deepstack]))
    return found


def start_of(talk: Talk) -> dict[str, Any]:
    """The fields of a greedy request that say how its prompt is to be answered."""
    asked = greedy_request(talk, TOKENS)
    names = ("sampling_params", "stop_conditions", "report_options", "tools_json")
    return {name: getattr(asked, name) for name in names}


def continued(
    served: ServedStack, sent: list[gateway_pb2.ContinueRequest]
) -> list[gateway_pb2.ChatChunk]:
    return list(served.chat.continued(sent))


def tokens_of(chunks: list[gateway_pb2.ChatChunk]) -> tuple[int, ...]:
    return tuple(token for chunk in chunks for token in chunk.token_ids)


def test_features_of_transformers_tower_get_transformers_tokens(
    served: ServedStack, features: list[FloatArray]
) -> None:
    reference = oracle(checkpoint("tied"))
    prepared = reference.prepare(FIVE_IMAGES.to_transformers(), FIVE_IMAGES.images())
    expected = reference.greedy(prepared, TOKENS).token_ids
    prompt = served.prepare(FIVE_IMAGES)
    sent = messages(prompt, features, **start_of(FIVE_IMAGES))
    assert tokens_of(continued(served, sent)) == expected
    assert served.greedy(FIVE_IMAGES, TOKENS).token_ids == expected


def test_other_features_of_the_same_prompt_share_nothing_but_the_text_before(
    served: ServedStack, features: list[FloatArray]
) -> None:
    prompt = served.prepare(FIVE_IMAGES)
    own = messages(prompt, features, **start_of(FIVE_IMAGES))
    expected = tokens_of(continued(served, own))
    forged = messages(prompt, [each[:, ::-1] for each in features], **start_of(FIVE_IMAGES))
    chunks = continued(served, forged)
    assert chunks[-1].completion.cached_tokens <= prompt.visual_spans[0].offset
    again = continued(served, own)
    assert tokens_of(again) == expected
    assert again[-1].completion.cached_tokens > prompt.visual_spans[-1].offset
    assert served.greedy(FIVE_IMAGES, TOKENS).token_ids == expected


def test_forged_bytes_under_an_honest_name_reach_no_decoder(
    served: ServedStack, features: list[FloatArray]
) -> None:
    prompt = served.prepare(FIVE_IMAGES)
    sent = messages(prompt, features, **start_of(FIVE_IMAGES))
    sent[1].features.chunk.values.data = bytes(len(sent[1].features.chunk.values.data))
    sent[1].features.chunk.ClearField("crc32")
    with pytest.raises(InvalidRequest) as caught:
        continued(served, sent)
    assert caught.value.param == "span_features[0].digest"
    served.wait_until_idle()
