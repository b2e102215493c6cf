"""A decoder goes on behind an output at every place where it may have been cut, over real graphs.

In float32 the greedy tokens are those of transformers.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from protos.wire.errors import InvalidRequest
from tests.e2e.decoder_client import (
    Answer,
    DecoderClient,
    Start,
    connected,
    make_features,
    make_start,
    text_ids,
    to_chunks,
)
from tests.support.bundles import bundle, checkpoint
from tests.support.decoder_process import DecoderProcess
from tests.support.oracle import Prepared, oracle

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = 24
SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
PENALTIES = {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3}


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["fp32", "int4"])
async def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Bundle, DecoderClient]]:
    path: Path = bundle("tied", request.param)
    flags = ("--threads=1", "--max-context=256", "--max-sequences=8")
    log = tmp_path_factory.mktemp("decoder") / "log"
    with DecoderProcess(path, log, flags) as process:
        async with connected(process.port) as client:
            yield request.param, Bundle.open(path), client


def sampled(start: Start, **params: Any) -> Start:
    for name, value in params.items():
        setattr(start.sampling_params, name, value)
    return start


def asked(opened: Bundle, kind: str) -> Start:
    """A request of some kind for `LENGTH` tokens."""
    manifest = opened.manifest
    start = make_start(manifest, kind, ids=text_ids(manifest, 20, seed=3), max_tokens=LENGTH)
    start.report_options.logprobs = True
    match kind:
        case "sampled":
            sampled(start, temperature=1.0, seed=11, top_p=0.95, **PENALTIES)
        case "penalized":
            sampled(start, **PENALTIES)
        case "image":
            start = make_start(manifest, kind, spans=[(4, 6)], max_tokens=LENGTH)
            sampled(start, temperature=1.0, seed=12)
        case "least":
            sampled(start, temperature=1.5, seed=13)
            end = manifest.special_tokens.eos[0]
            start.sampling_params.logit_bias.add(token_id=end, bias=8.0)
            start.stop_conditions.ignore_eos = False
            start.stop_conditions.min_tokens = 12
        case "schema" | "thought":
            sampled(start, temperature=1.0, seed=14)
            start.stop_conditions.ignore_eos = False
            start.constraint.json_schema = json.dumps(SCHEMA)
    if kind == "thought":  # which ends soon, so that the schema holds what follows
        start.constraint_after_token = 40
        start.sampling_params.logit_bias.add(token_id=40, bias=9.0)
    return start


def by_transformers(start: Start) -> tuple[int, ...]:
    """The greedy tokens behind a prompt of text."""
    ids = np.array(start.input_ids, dtype=np.int64)
    prepared = Prepared(
        text="",
        input_ids=ids,
        mm_token_type_ids=np.zeros_like(ids),
        pixel_values=None,
        image_grid_thw=None,
        position_ids=np.tile(np.arange(len(ids)), (3, 1)),
        delta=0,
    )
    return oracle(checkpoint("tied")).greedy(prepared, LENGTH).token_ids


KINDS = ("greedy", "penalized", "sampled", "image", "least", "schema", "thought")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_cut_leads_to_the_same_answer(
    served: tuple[str, Bundle, DecoderClient], kind: str
) -> None:
    precision, opened, client = served
    start = asked(opened, kind)
    features = to_chunks(make_features(opened.manifest, 6)) if kind == "image" else []
    whole = await client.generate(start, features)
    if (precision, kind) == ("fp32", "greedy"):
        assert tuple(whole.token_ids) == by_transformers(start)
    if kind == "thought":
        assert 0 < whole.token_ids.index(40) < len(whole.token_ids) - 4

    async def rest(cut: int) -> Answer:
        resumed = Start()
        resumed.CopyFrom(start)
        resumed.request_id = f"{kind}{cut}"
        resumed.cache_salt = bytes([cut])  # nothing of it is there already
        resumed.output_ids.extend(whole.token_ids[:cut])
        return await client.generate(resumed, features)

    cuts = range(min(LENGTH, len(whole.token_ids) + 1))
    for cut, answer in enumerate(await asyncio.gather(*map(rest, cuts))):
        assert answer.token_ids == whole.token_ids[cut:]
        ended, wanted = answer.completion, whole.completion
        assert ended is not None and wanted is not None
        for field in ("finish_reason", "stop_token_id", "prompt_tokens", "completion_tokens"):
            assert getattr(ended, field) == getattr(wanted, field)
        told, expected = (
            [each.logprob for each in logprobs]
            for logprobs in (answer.logprobs, whole.logprobs[cut:])
        )
        assert told == pytest.approx(expected, abs=1e-3)  # of rows computed among other ones


async def test_over_our_operators_the_rest_has_the_same_bits(
    served: tuple[str, Bundle, DecoderClient],
) -> None:
    precision, opened, client = served
    if precision != "int4":
        pytest.skip("ONNX Runtime's products are rounded by the number of their rows")
    start = asked(opened, "sampled")
    whole = await client.generate(start)
    for cut in (1, 8, 17, LENGTH - 1):  # one after the other, so that prompts come in one piece
        start.cache_salt = bytes([cut])
        del start.output_ids[:]
        start.output_ids.extend(whole.token_ids[:cut])
        rest = await client.generate(start)
        assert rest.logprobs == whole.logprobs[cut:]


async def test_an_answer_that_is_not_the_constraints_own_is_refused(
    served: tuple[str, Bundle, DecoderClient],
) -> None:
    _, opened, client = served
    start = asked(opened, "schema")
    start.request_id = "refused"
    start.output_ids.append(40)
    with pytest.raises(InvalidRequest) as refused:
        await client.generate(start)
    assert refused.value.param == "output_ids"
