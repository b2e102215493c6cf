"""The engine over the real graphs: any interleaving gives every sequence its solo tokens."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from decoder_service.app import load
from decoder_service.config import DecoderConfig
from decoder_service.engine.engine import Engine
from decoder_service.engine.stream import SequenceStream
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sequence.request import Completion, ReportOptions, Request, Span, Token
from protos.bundle.manifest import Bundle, Manifest
from tests.support.bundles import bundle, checkpoint
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import Prepared, oracle

FloatArray = npt.NDArray[np.float32]
SAMPLINGS: tuple[Mapping[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.8, "seed": 4, "top_p": 0.9, "repetition_penalty": 1.2},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request with the features of its images."""

    request: Request
    features: tuple[FloatArray, ...]


@asynccontextmanager
async def engine_over(path: Path, *, slots: int, chunk: int, mixed: int) -> AsyncIterator[Engine]:
    loaded = load(
        DecoderConfig(
            bundle=str(path),
            threads=1,
            max_sequences=slots,
            max_context=512,
            prefill_chunk_tokens=chunk,
            mixed_chunk_tokens=mixed,
        )
    )
    engine = Engine(
        executor=loaded.executor,
        max_waiting=64,
    )
    async with engine:
        yield engine


async def collect(stream: SequenceStream) -> list[Token]:
    tokens: list[Token] = []
    while True:
        for event in await stream.next_events():
            if isinstance(event, Completion):
                return tokens
            tokens.append(event)


async def run(engine: Engine, job: Job) -> list[Token]:
    with engine.submit(job.request) as stream:
        for index, values in enumerate(job.features):
            stream.set_features(index, values)
        return await collect(stream)


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.token_id for token in tokens]


def random_job(rng: random.Random, manifest: Manifest, index: int) -> Job:
    text = manifest.text
    length = rng.randint(1, 90)
    highest = min(manifest.special_tokens.eos) - 10
    ids = np.array([rng.randrange(highest) for _ in range(length)], dtype=np.int32)
    spans, at = [], 0
    while rng.random() < 0.6 and at < length:
        at += rng.randint(0, 10)
        count = min(rng.randint(1, 30), length - at)
        if count > 0:
            ids[at : at + count] = manifest.special_tokens.image
            spans.append(Span(offset=at, length=count, digest=b""))
            at += count
    numbers = np.random.default_rng(rng.randrange(2**32))
    positions = np.sort(numbers.integers(0, length, (3, length)), axis=1).astype(np.int32)
    levels = 1 + manifest.deepstack_level_count
    return Job(
        request=Request(
            request_id=f"r{index}",
            input_ids=ids,
            position_ids=positions,
            position_delta=rng.randint(-length + 1, 5),
            spans=tuple(spans),
            sampling=SamplingParams(**rng.choice(SAMPLINGS)),
            max_tokens=rng.randint(1, 40),
        ),
        features=tuple(
            numbers.standard_normal((levels, span.length, text.hidden_size)).astype(np.float32)
            for span in spans
        ),
    )


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(NAMES),
    slots=st.integers(2, 6),
    chunk=st.integers(1, 64),
    mixed=st.integers(1, 24),
)
async def test_any_interleaving_gives_every_sequence_its_solo_tokens(
    seed: int, name: str, slots: int, chunk: int, mixed: int
) -> None:
    path = bundle(name, "fp32")
    manifest = Bundle.open(path).manifest
    rng = random.Random(seed)
    jobs = [random_job(rng, manifest, index) for index in range(10)]
    async with engine_over(path, slots=1, chunk=512, mixed=512) as engine:
        solo = [ids_of(await run(engine, job)) for job in jobs]
    pauses = [rng.random() * 0.03 for _ in jobs]
    victims = {index for index in range(len(jobs)) if rng.random() < 0.3}

    async def one(index: int) -> list[int] | None:
        await asyncio.sleep(pauses[index])
        with engine.submit(jobs[index].request) as stream:
            for place, values in enumerate(jobs[index].features):
                await asyncio.sleep(pauses[place] / 2)
                stream.set_features(place, values)
            if index in victims:
                await asyncio.sleep(pauses[index])
                return None
            return ids_of(await collect(stream))

    async with engine_over(path, slots=slots, chunk=chunk, mixed=mixed) as engine:
        together = await asyncio.gather(*(one(index) for index in range(len(jobs))))
    for index, tokens in enumerate(together):
        assert tokens is None or tokens == solo[index]


def talks(name: str) -> list[Prepared]:
    """Text alone, one image, and three images between text."""
    rng = np.random.default_rng(5)
    reference = oracle(checkpoint(name))
    found = []
    for sizes in ((), ((120, 200),), ((64, 64), (96, 48), (70, 150))):
        content: list[dict[str, str]] = [{"type": "text", "text": "hello there"}]
        for place in range(len(sizes)):
            content += [{"type": "image"}, {"type": "text", "text": f"and number {place}?"}]
        images = [
            Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes
        ]
        found.append(reference.prepare([{"role": "user", "content": content}], images))
    return found


def job_of(name: str, prepared: Prepared, tokens: int) -> Job:
    """What the gateway and the vision tier would have sent."""
    spans, features = [], []
    if prepared.pixel_values is not None and prepared.image_grid_thw is not None:
        visual = oracle(checkpoint(name)).features(prepared.pixel_values, prepared.image_grid_thw)
        levels = np.stack([visual.embeddings, *visual.deepstack])
        kinds = np.concatenate([[0], prepared.mm_token_type_ids, [0]])
        edges = np.flatnonzero(np.diff(kinds))
        for offset, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            spans.append(Span(offset=offset, length=end - offset, digest=b""))
            features.append(levels[:, : end - offset])
            levels = levels[:, end - offset :]
    return Job(
        request=Request(
            request_id="r",
            input_ids=prepared.input_ids.astype(np.int32),
            position_ids=prepared.position_ids.astype(np.int32),
            position_delta=prepared.delta,
            spans=tuple(spans),
            sampling=SamplingParams(temperature=0.0),
            max_tokens=tokens,
            report=ReportOptions(logits=True),
        ),
        features=tuple(features),
    )


@pytest.mark.parametrize("name", NAMES)
async def test_greedy_tokens_and_logits_are_those_of_transformers(name: str) -> None:
    prepared = talks(name)
    expected = [oracle(checkpoint(name)).greedy(talk, 64) for talk in prepared]
    jobs = [job_of(name, talk, 64) for talk in prepared]
    many = [
        replace(job, request=replace(job.request, request_id=f"{copy}-{index}"))
        for copy in range(3)
        for index, job in enumerate(jobs)
    ]
    async with engine_over(bundle(name, "fp32"), slots=8, chunk=48, mixed=20) as engine:
        answers = [await run(engine, job) for job in jobs]
        answers += await asyncio.gather(*(run(engine, job) for job in many))
    for index, answer in enumerate(answers):
        reference = expected[index % len(expected)]
        assert tuple(ids_of(answer)) == reference.token_ids
        logits = np.stack([token.logits for token in answer if token.logits is not None])
        assert np.abs(logits - reference.logits).max() < 1e-3
