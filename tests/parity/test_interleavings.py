"""Whatever happens around it, every sequence gets the tokens transformers gives it alone.

Arrivals, images (late ones, shared ones, some without a digest), follow-up turns, priorities,
preemptions, cancellations, chunk sizes, a small KV budget and drafts ahead, all drawn by
hypothesis over real graphs: float32 ones through ONNX Runtime's kernels, INT4 ones through ours.
The step loop is driven directly, without the engine's thread, so that what fails can be replayed.

For INT4 transformers' model has the same integer products in NumPy. Attention sums in other orders
where a row is decoded or part of a chunk, and a value that this moves across a rounding border
changes logits a little; so a token may differ where two were nearly as likely, and the rest of that
sequence is not compared.
"""

import functools
from collections import Counter
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoder_service.app import Model, load_model, make_executor
from decoder_service.cache.slots import Slots
from decoder_service.config import DecoderConfig
from decoder_service.engine.step import StepExecutor
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import Scheduler
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.request import Completion, Request, Span, Token
from decoder_service.sequence.sequence import Sequence
from protos.bundle.manifest import Bundle, Manifest
from tests.support.blockwise import BlockwiseLinear
from tests.support.bundles import bundle, checkpoint
from tests.support.dequantized import with_products
from tests.support.oracle import Oracle, oracle

FloatArray = npt.NDArray[np.float32]
TOKENS = 20
CONTEXT = 128
MOST_SEQUENCES = 4
NEAR_TIE = {"fp32": 0.0, "int4": 0.2}  # difference of two logits, whose standard deviation is 3
LEAST_COMPARED = 0.8  # of all tokens, those before a near tie
SUBJECTS = [("tied", "fp32"), ("odd", "fp32"), ("tied", "int4"), ("deep", "int4")]
GRIDS = {b"cat": (4, 5), b"dog": (3, 3), b"": (2, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A prompt, its images' features, and transformers' greedy answer.

    `margins` say how much likelier than any other each token of it was, in logits.
    """

    request: Request
    features: tuple[FloatArray, ...]
    answer: tuple[int, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a scenario; steps count from the scenario's beginning."""

    talk: int
    step: int
    tokens: int
    priority: int
    features_after: int  # steps from the slot to the features
    leaves_after: int | None  # steps to the cancellation


arrivals = st.builds(
    Arrival,
    talk=st.integers(0, 11),
    step=st.integers(0, 40),
    tokens=st.integers(1, TOKENS),
    priority=st.sampled_from((0, 0, 0, 5, 20)),
    features_after=st.integers(0, 6),
    leaves_after=st.none() | st.none() | st.integers(0, 30),
)


@st.composite
def scenarios(draw: st.DrawFn) -> list[Arrival]:
    return draw(st.lists(arrivals, min_size=3, max_size=10))


def features_of(manifest: Manifest, digest: bytes) -> FloatArray:
    """An image's features: the same for the same digest, float32 [1 + levels, N, hidden]."""
    height, width = GRIDS[digest]
    shape = (1 + manifest.deepstack_level_count, height * width, manifest.text.hidden_size)
    rng = np.random.default_rng([len(digest), *digest])
    return (rng.standard_normal(shape) / 2).astype(np.float32)


def make_request(manifest: Manifest, parts: Many[Many[int] | bytes]) -> Request:
    """A prompt of texts (token ids) and images (digests), with MRoPE positions."""
    ids, spans, positions, place = list[int](), list[Span](), list[npt.NDArray[Any]](), 0
    for part in parts:
        if isinstance(part, bytes):
            height, width = GRIDS[part]
            spans.append(Span(offset=len(ids), length=height * width, digest=part))
            ids += [manifest.special_tokens.image] * (height * width)
            rows, columns = np.divmod(np.arange(height * width), width)
            positions.append(np.stack([np.zeros_like(rows), rows, columns]) + place)
            place += max(height, width)
        else:
            ids += part
            positions.append(np.tile(np.arange(len(part)) + place, (3, 1)))
            place += len(part)
    return Request(
        request_id="r",
        input_ids=np.array(ids, np.int32),
        position_ids=np.concatenate(positions, axis=1).astype(np.int32),
        position_delta=place - len(ids),
        spans=tuple(spans),
        sampling=SamplingParams(temperature=0.0),
        max_tokens=TOKENS,
    )


@functools.cache
def reference(name: str, precision: str) -> Oracle:
    """transformers' model, with the integer products of a quantized bundle."""
    exact = oracle(checkpoint(name))
    if precision == "fp32":
        return exact
    return with_products(exact, bundle(name, precision), BlockwiseLinear)


@torch.no_grad()
def make_talk(model: Any, request: Request, features: tuple[FloatArray, ...]) -> Talk:
    """What transformers answers, from its own embeddings and the given features."""
    embeds = model.get_input_embeddings()(torch.from_numpy(request.input_ids.astype(np.int64)))
    embeds = embeds[None].clone()
    visual: dict[str, Any] = {}
    if request.spans:
        mask = torch.zeros(embeds.shape[:2], dtype=torch.bool)
        for span in request.spans:
            mask[0, span.offset : span.end] = True
        levels = torch.from_numpy(np.concatenate(features, axis=1))
        embeds[mask] = levels[0]
        visual = {"visual_pos_masks": mask, "deepstack_visual_embeds": list(levels[1:])}
    positions = torch.from_numpy(request.position_ids.astype(np.int64))[:, None]
    past, ids, margins = None, list[int](), list[float]()
    for step in range(TOKENS):
        output = model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            **visual,
        )
        past, visual = output.past_key_values, {}
        best = model.lm_head(output.last_hidden_state[0, -1]).topk(2)
        ids.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        embeds = model.get_input_embeddings()(torch.tensor([[ids[-1]]]))
        place = request.prompt_length + step + request.position_delta
        positions = torch.full((3, 1, 1), place)
    return Talk(request=request, features=features, answer=tuple(ids), margins=tuple(margins))


@functools.cache
def talks(name: str, precision: str) -> tuple[Talk, ...]:
    """Prompts that begin alike in many ways, and follow-up turns with the model's own answers."""
    manifest = Bundle.open(bundle(name, precision)).manifest
    model = reference(name, precision).model
    rng = np.random.default_rng(11)

    def text(length: int) -> list[int]:
        ids: list[int] = rng.integers(0, min(manifest.special_tokens.eos) - 10, length).tolist()
        return ids

    system, question, other, short = text(22), text(9), text(5), text(2)
    prompts: list[list[list[int] | bytes]] = [
        [system, question],
        [system, other],
        [short],
        [system, b"cat", question],
        [system, b"cat", other],
        [system, b"dog", question],
        [short, b"cat", short, b"dog", other],
        [short, b"cat", short, b"cat", other],
        [system, b"", question],
        [text(60)],
    ]

    def talk(prompt: list[list[int] | bytes]) -> Talk:
        request = make_request(manifest, prompt)
        features = tuple(features_of(manifest, span.digest) for span in request.spans)
        return make_talk(model, request, features)

    found = [talk(prompt) for prompt in prompts]
    for index in (0, 3):
        found.append(talk([*prompts[index], list(found[index].answer[:-3]), other]))
    return tuple(found)


@functools.cache
def loaded(name: str, precision: str) -> Model:
    config = DecoderConfig(
        bundle=str(bundle(name, precision)),
        kv_dtype="float32",
        threads=1,
        max_sequences=MOST_SEQUENCES,
        max_context=CONTEXT,
    )
    return load_model(config)


class ScriptedSpeculation(Speculation):
    """Drafts that are right more often than a random model's text would make them."""

    def __init__(self, most_tokens: int) -> None:
        super().__init__(most_tokens)
        self.most_tokens = most_tokens
        self.answers: dict[Sequence, tuple[int, ...]] = {}

    def draft(self, sequence: Sequence, room: int) -> npt.NDArray[np.int32]:
        begin = sequence.history_length - sequence.request.prompt_length
        count = min(self.most_tokens, room)
        draft = np.array(self.answers[sequence][begin : begin + count], np.int32)
        if len(draft) and begin % 3 == 0:
            draft[begin % len(draft)] += 1
        return draft


class Stage:
    """A scenario on its way."""

    def __init__(
        self,
        subject: tuple[str, str],
        executor: StepExecutor,
        speculation: ScriptedSpeculation,
        seen: Counter[str],
    ) -> None:
        self.talks = talks(*subject)
        self.near_tie = NEAR_TIE[subject[1]]
        self.executor = executor
        self.speculation = speculation
        self.residency = executor.residency
        self.seen = seen
        self.step = 0
        self.arrivals: dict[Sequence, Arrival] = {}
        self.needed: dict[Sequence, tuple[int, ...]] = {}
        self.slot_since: dict[Sequence, int] = {}
        self.tokens: dict[Sequence, list[int]] = {}

    def arrive(self, arrival: Arrival) -> None:
        talk = self.talks[arrival.talk]
        request = replace(talk.request, max_tokens=arrival.tokens, priority=arrival.priority)
        sequence = Sequence(request, arrival=float(self.step))
        self.arrivals[sequence], self.tokens[sequence] = arrival, []
        self.speculation.answers[sequence] = talk.answer
        self.needed[sequence] = self.residency.arrive(sequence).needed_spans
        self.seen["image not needed"] += len(self.needed[sequence]) < len(request.spans)

    def turn(self, mixed: int, preempts: bool) -> None:
        self.step += 1
        for sequence, arrival in list(self.arrivals.items()):
            age = self.step - arrival.step
            if arrival.leaves_after is not None and age > arrival.leaves_after:
                self.leave(sequence)
                self.residency.end(sequence)
                self.seen["cancelled"] += 1
            elif self.step >= self.slot_since.get(sequence, 10**9) + arrival.features_after:
                features = self.talks[arrival.talk].features
                for index in self.needed.pop(sequence, ()):
                    sequence.set_features(index, features[index], 0.0)
        if preempts and self.residency.running:
            self.residency.preempt(self.residency.running[self.step % len(self.residency.running)])
        for sequence in self.residency.admit(float(self.step)):
            self.slot_since.setdefault(sequence, self.step)
        plan = self.residency.plan(self.step, mixed, float(self.step))
        self.seen["mixed step"] += bool(plan.decode and plan.prefill)
        self.seen["several prompts in a step"] += len(plan.prefill) > 1
        if not plan.is_empty:
            for sequence, event in self.executor.run(plan, self.step):
                self.take(sequence, event)

    def take(self, sequence: Sequence, event: object) -> None:
        if isinstance(event, Token):
            self.tokens[sequence].append(event.token_id)
            return
        assert isinstance(event, Completion), event
        assert len(self.tokens[sequence]) == sequence.request.max_tokens
        self.seen["cached tokens"] += event.cached_tokens
        self.seen["accepted drafts"] += event.accepted_tokens
        self.leave(sequence)

    def leave(self, sequence: Sequence) -> None:
        tokens, talk = self.tokens[sequence], self.talks[self.arrivals.pop(sequence).talk]
        wrong = [at for at, token in enumerate(tokens) if token != talk.answer[at]]
        compared = min(wrong, default=len(tokens))
        assert not wrong or talk.margins[compared] < self.near_tie, (tokens, talk.answer)
        self.seen["tokens"] += len(tokens)
        self.seen["compared tokens"] += compared


def play(stage: Stage, scenario: Many[Arrival], mixed: int, preempt_every: int) -> None:
    todo = sorted(scenario, key=lambda arrival: arrival.step)
    while todo or stage.arrivals:
        while todo and todo[0].step <= stage.step:
            stage.arrive(todo.pop(0))
        residency = stage.residency
        may = sum(s.was_preempted for s in residency.waiting) < residency.max_sequences
        may = may and residency.preemption_count < 12  # endlessly, nobody would get anywhere
        stage.turn(mixed, preempts=may and stage.step % preempt_every == preempt_every - 1)
        assert stage.step < 5000, "a sequence does not end"


@pytest.mark.parametrize(("name", "precision"), SUBJECTS)
def test_every_sequence_gets_the_tokens_that_transformers_gives_it_alone(
    name: str, precision: str
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        scenario=scenarios(),
        sequences=st.integers(1, MOST_SEQUENCES),
        spare=st.integers(0, 400),
        least_kept=st.integers(1, 20),
        chunk=st.integers(1, 64),
        mixed=st.integers(1, 40),
        draft_tokens=st.sampled_from((0, 4, 8)),
        preempt_every=st.sampled_from((9, 25, 10**6)),
    )
    def run(
        scenario: list[Arrival],
        sequences: int,
        spare: int,
        least_kept: int,
        chunk: int,
        mixed: int,
        draft_tokens: int,
        preempt_every: int,
    ) -> None:
        model = loaded(name, precision)  # what an earlier scenario left in its cache included
        slots = Slots(model.cache, token_budget=CONTEXT + spare, least_kept=least_kept)
        scheduler = Scheduler(prefill_chunk_tokens=chunk, preemption_margin=3)
        speculation = ScriptedSpeculation(draft_tokens)
        executor = make_executor(
            model,
            Residency(slots, scheduler, max_sequences=sequences),
            pacer=ChunkPacer(mixed),
            speculation=speculation,
        )
        stage = Stage((name, precision), executor, speculation, seen)
        play(stage, scenario, mixed, preempt_every)
        seen["preempted"] += executor.residency.preemption_count

    run()
    for what in (
        "image not needed",
        "cached tokens",
        "mixed step",
        "several prompts in a step",
        "preempted",
        "accepted drafts",
        "cancelled",
    ):
        assert seen[what] > 0, f"no scenario had a {what}"
    assert seen["compared tokens"] >= LEAST_COMPARED * seen["tokens"]
