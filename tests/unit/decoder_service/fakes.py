"""A runner without a graph, whose logits depend on everything a real one's would."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.slots import SLOTS_PER_SEQUENCE, Slots
from decoder_service.engine.step import StepExecutor
from decoder_service.model.batch import Segments
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import Scheduler
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.request import ReportOptions, Request, Span

VOCAB = 64
HIDDEN = 8
LEVELS = 2
PLACEHOLDER = VOCAB - 1
EMBEDDINGS = np.random.default_rng(3).standard_normal((VOCAB, HIDDEN)).astype(np.float32)
FloatArray = npt.NDArray[np.float32]


class FakeRunner:
    """Logits from a hash of the slot's rows: a wrong slot, row or position gives other tokens.

    Keys hold what was embedded (DeepStack added), values hold positions; `fail_on` makes a
    prefill whose first embedding equals that row raise; a cleared `gate` holds the next run;
    `hold_at` clears it once a decode step has that many rows, and is None from then on.
    `batch_sizes` are the sequences of each run that decode, `chunk_sizes` the tokens of each
    prompt's chunk, `run_sizes` the chunks of each run.
    """

    def __init__(self, cache: KvCache) -> None:
        self.cache = cache
        self.batch_sizes: list[int] = []
        self.chunk_sizes: list[int] = []
        self.run_sizes: list[int] = []
        self.fail_on: FloatArray | None = None
        self.fail_decode = False
        self.hold_at: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        rng = np.random.default_rng(7)
        self._head = rng.standard_normal((HIDDEN, VOCAB)) * 3
        self._mix = rng.standard_normal((HIDDEN, HIDDEN))

    def bind(self, batch: Sequence[Segments]) -> "FakeRun":
        return FakeRun(self, batch)

    def compute(self, batch: Sequence[Segments]) -> FloatArray:
        slots = [part.slot + place for part in batch for place in range(len(part.past))]
        assert len(set(slots)) == len(slots), "a slot twice in one run"
        chunks = [part for part in batch if not is_decode_step(part)]
        self.run_sizes.append(len(chunks))
        rows = [
            self._decode(part) if is_decode_step(part) else self._prefill(part) for part in batch
        ]
        return np.concatenate(rows)

    def _prefill(self, part: Segments) -> FloatArray:
        self.gate.wait()
        rows, past = part.embeds, int(part.past[0])
        if self.fail_on is not None and np.array_equal(rows[0], self.fail_on):
            raise RuntimeError("scripted failure")
        self.chunk_sizes.append(len(rows))
        if part.deepstack is not None:
            rows = rows + (part.deepstack * [[[2.0]], [[3.0]]]).sum(0)
        self._write(part.slot, past, rows, np.broadcast_to(part.position_ids, (3, len(rows))).T)
        logits = [self._logits(part.slot, past + int(row) + 1) for row in part.logit_rows]
        return np.array(logits, dtype=np.float32).reshape(-1, VOCAB)

    def _decode(self, part: Segments) -> FloatArray:
        if len(part.embeds) == self.hold_at:
            self.gate.clear()
            self.hold_at = None
        self.gate.wait()
        if self.fail_decode:
            raise RuntimeError("scripted failure")
        self.batch_sizes.append(len(part.embeds))
        for slot, (row, position, length) in enumerate(
            zip(part.embeds, part.position_ids, part.past, strict=True)
        ):
            self._write(slot, int(length), row[None], np.full((1, 3), position))
        return np.stack([self._logits(slot, int(n) + 1) for slot, n in enumerate(part.past)])

    def _write(self, slot: int, past: int, rows: Any, positions: Any) -> None:
        layer = self.cache.layers[-1]
        layer.key[slot, 0, past : past + len(rows)] = rows
        layer.value[slot, 0, past : past + len(rows), :3] = positions

    def _logits(self, slot: int, length: int) -> FloatArray:
        layer = self.cache.layers[-1]
        keys = layer.key[slot, 0, :length].astype(np.float64)
        positions = layer.value[slot, 0, :length, :3].astype(np.float64)
        places = np.arange(length)
        phases = positions @ [0.7, 1.1, 1.3] + places
        state = np.cos(keys @ self._mix + phases[:, None]).sum(0)
        # Folded again: a small change of any row changes most argmaxes.
        logits: FloatArray = (np.cos(5 * state) @ self._head).astype(np.float32)
        return logits


class FakeRun:
    """A bound run of a fake runner."""

    def __init__(self, runner: FakeRunner, batch: Sequence[Segments]) -> None:
        self._runner = runner
        self._batch = batch

    def run(self) -> FloatArray:
        return self._runner.compute(self._batch)


def is_decode_step(part: Segments) -> bool:
    """Whether it is one token of every decoding sequence: such positions have no axes."""
    return len(part.embeds) == len(part.past) and part.position_ids.ndim == 1


def make_slots(
    *, slot_count: int, max_length: int = 64, token_budget: int | None = None, least_kept: int = 4
) -> tuple[Slots, KvCache]:
    """Slots over small buffers; by default with a budget that is never reached."""
    cache = KvCache(
        layer_count=2, slot_count=slot_count, head_count=1, max_length=max_length, head_dim=HIDDEN
    )
    budget = slot_count * max_length if token_budget is None else token_budget
    return Slots(cache, token_budget=budget, least_kept=least_kept), cache


def make_executor(
    folder: Path,
    *,
    max_sequences: int = 4,
    max_length: int = 64,
    token_budget: int | None = None,
    chunk: int = 8,
    mixed: int = 3,
    preemption_margin: float = 10.0,
    draft_tokens: int = 0,
    speculation: Speculation | None = None,
) -> tuple[StepExecutor, FakeRunner]:
    """An executor over a fake runner and a random embedding table in `folder`."""
    file = folder / "embeddings.bin"
    EMBEDDINGS.tofile(file)
    table = EmbeddingTable(file, dtype="float32", vocab_size=VOCAB, hidden_size=HIDDEN)
    slots, cache = make_slots(
        slot_count=SLOTS_PER_SEQUENCE * max_sequences,
        max_length=max_length,
        token_budget=token_budget,
    )
    runner = FakeRunner(cache)
    scheduler = Scheduler(prefill_chunk_tokens=chunk, preemption_margin=preemption_margin)
    executor = StepExecutor(
        runner=runner,
        table=table,
        residency=Residency(slots, scheduler, max_sequences=max_sequences),
        level_count=LEVELS,
        pacer=ChunkPacer(mixed),
        speculation=speculation or Speculation(draft_tokens),
    )
    return executor, runner


def make_request(
    input_ids: Sequence[int] = (1, 2, 3),
    *,
    request_id: str = "r",
    max_tokens: int = 4,
    span_places: Sequence[tuple[int, int]] = (),
    stop_token_ids: Sequence[int] = (),
    sampling: Mapping[str, Any] | None = None,
    report: ReportOptions | None = None,
    priority: int = 0,
    digests: Sequence[bytes] = (),
    salt: bytes = b"",
    tenant: bytes = b"",
) -> Request:
    """A request with plain positions; greedy unless told otherwise."""
    ids = np.array(input_ids, dtype=np.int32)
    for offset, length in span_places:
        ids[offset : offset + length] = PLACEHOLDER
    return Request(
        request_id=request_id,
        input_ids=ids,
        position_ids=np.tile(np.arange(len(ids), dtype=np.int32), (3, 1)),
        position_delta=0,
        spans=tuple(
            Span(offset=offset, length=length, digest=digest)
            for (offset, length), digest in zip(
                span_places, digests or [b""] * len(span_places), strict=True
            )
        ),
        cache_salt=salt,
        tenant=tenant,
        sampling=SamplingParams(**{"temperature": 0.0, **(sampling or {})}),
        max_tokens=max_tokens,
        stop_token_ids=frozenset(stop_token_ids),
        report=report or ReportOptions(),
        priority=priority,
    )


def random_features(seed: int, length: int) -> FloatArray:
    """Features of one span, float32 [1 + LEVELS, length, HIDDEN]."""
    shape = (1 + LEVELS, length, HIDDEN)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
