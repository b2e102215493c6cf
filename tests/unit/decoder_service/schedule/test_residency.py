"""Residency by property: no slot shared or leaked, no budget passed, no pin broken, all end.

Instead of a model, every token's KV is a number that depends on all that real KV depends on; so
whoever is given KV of another beginning, or of nothing, is found out.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.slots import SLOTS_PER_SEQUENCE, Slots
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import PrefillChunk, Scheduler
from decoder_service.sequence.content import Content
from decoder_service.sequence.sequence import Sequence, Status
from tests.unit.decoder_service.fakes import make_request

CONTEXT = 32
PAGE = 1024  # float32: a token's row is a page, so that what is given back reads as zeros
NOTHING = np.zeros((1, 1, 1), np.float32)


def kv_of(content: Content) -> list[int]:
    """What stands for the KV of each token."""
    state, numbers = len(content.salt), []
    for place, token in enumerate(content.token_ids):
        digests = [s.digest for s in content.spans if s.offset <= place < s.end]
        for part in (int(token), *content.position_ids[:, place].tolist(), *digests):
            value = sum(part) if isinstance(part, bytes) else part
            state = (state * 31 + value + 7) % 1_000_003
        numbers.append(state + 1)
    return numbers


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]], list[bytes]]:
    """Prompts that often begin alike, with images that are often the same."""
    length = draw(st.integers(1, 24))
    ids = [1] * length
    for _ in range(draw(st.integers(0, 2))):
        ids[draw(st.integers(0, length - 1))] = draw(st.integers(1, 3))
    places = draw(st.sampled_from(([], [(2, 5)], [(2, 5), (9, 6)], [(1, 4), (5, 3)])))
    kept = [(offset, count) for offset, count in places if offset + count <= length]
    digests = [draw(st.sampled_from((b"", b"a", b"b"))) for _ in kept]
    return ids, kept, digests


class ResidencyMachine(RuleBasedStateMachine):
    """Sequences come, prefill, decode, are cancelled, fail and are preempted in any order."""

    @initialize(
        sequences=st.integers(1, 3),
        spare=st.integers(0, 80),
        least_kept=st.integers(1, 6),
        margin=st.integers(0, 3),
    )
    def start(self, sequences: int, spare: int, least_kept: int, margin: int) -> None:
        self.cache = KvCache(
            layer_count=1,
            slot_count=SLOTS_PER_SEQUENCE * sequences,
            head_count=1,
            max_length=CONTEXT,
            head_dim=PAGE,
        )
        slots = Slots(self.cache, token_budget=CONTEXT + spare, least_kept=least_kept)
        scheduler = Scheduler(prefill_chunk_tokens=7, preemption_margin=margin)
        self.residency = Residency(slots, scheduler, max_sequences=sequences)
        self.now = 0.0
        self.steps = 0
        self.owed: dict[Sequence, set[int]] = {}

    @property
    def live(self) -> list[Sequence]:
        return [*self.residency.waiting, *self.residency.running]

    @rule(
        parts=requests(),
        output=st.integers(1, 8),
        priority=st.integers(-3, 3),
        salt=st.sampled_from((b"", b"t")),
    )
    def arrive(
        self,
        parts: tuple[list[int], list[tuple[int, int]], list[bytes]],
        output: int,
        priority: int,
        salt: bytes,
    ) -> None:
        ids, places, digests = parts
        request = make_request(
            ids,
            max_tokens=output,
            span_places=places,
            digests=digests,
            salt=salt,
            priority=priority,
        )
        sequence = Sequence(request, arrival=self.now)
        admission = self.residency.arrive(sequence)
        assert 0 <= admission.cached_tokens < request.prompt_length
        self.owed[sequence] = set(admission.needed_spans)

    @precondition(lambda self: any(self.owed.values()))
    @rule(data=st.data())
    def take_features(self, data: st.DataObject) -> None:
        owing = [s for s, spans in self.owed.items() if spans and s.status is not Status.WAITING]
        if owing:
            sequence = data.draw(st.sampled_from(owing))
            index = data.draw(st.sampled_from(sorted(self.owed[sequence])))
            self.owed[sequence].discard(index)
            sequence.set_features(index, NOTHING, self.now)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), is_sound=st.booleans())
    def leave(self, data: st.DataObject, is_sound: bool) -> None:
        self.end(data.draw(st.sampled_from(self.live)), is_sound)

    @precondition(lambda self: self.residency.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        waiting = [s for s in self.residency.waiting if s.was_preempted]
        if len(waiting) < self.residency.max_sequences:
            self.residency.preempt(data.draw(st.sampled_from(self.residency.running)))

    @rule(mixed=st.integers(1, 8), count=st.integers(1, 4))
    def run(self, mixed: int, count: int) -> None:
        for _ in range(count):
            self.step(mixed)

    def step(self, mixed: int) -> bool:
        self.now += 1.0
        self.steps += 1
        granted = self.residency.admit(self.now)
        plan = self.residency.plan(self.steps, mixed, self.now)
        slots = self.residency.slots
        lengths = {c.sequence.slot: c.stop for c in plan.prefill}
        assert all(slot is not None and slot >= slots.decoding_count for slot in lengths)
        assert list(plan.decode) == slots.decoding()
        assert self.residency.has_work == (not plan.is_empty)
        for sequence in plan.decode:
            self.write(sequence, sequence.history_length)
            slots.extend(sequence, sequence.history_length)
        for chunk in plan.prefill:  # one run: all is computed before anything moves
            self.prefill(chunk)
        for sequence in plan.decode:
            self.take_token(sequence)
        for chunk in plan.prefill:
            self.settle(chunk)
        return bool(granted) or not plan.is_empty

    def prefill(self, chunk: PrefillChunk) -> None:
        sequence = chunk.sequence
        for span, values in zip(sequence.spans, sequence.features, strict=True):
            overlaps = span.offset < chunk.stop and span.end > chunk.start
            assert not overlaps or values is not None, "prefilled without features"
        self.write(sequence, chunk.stop)
        self.residency.prefilled(sequence, chunk.stop)

    def settle(self, chunk: PrefillChunk) -> None:
        sequence = chunk.sequence
        if chunk.is_last:
            self.take_token(sequence)
            if sequence.status is Status.PREFILLING:
                self.residency.slots.promote(sequence)
                sequence.status = Status.DECODING

    def write(self, sequence: Sequence, stop: int) -> None:
        numbers = kv_of(sequence.content(stop))[sequence.kv_length :]
        rows = self.cache.layers[0].key[sequence.slot, 0, sequence.kv_length : stop]
        rows[:] = np.array(numbers, np.float32)[:, None]

    def take_token(self, sequence: Sequence) -> None:
        sequence.output_count += 1
        if sequence.output_count == sequence.request.max_tokens:
            self.end(sequence)
        else:
            sequence.append(1 + sequence.output_count % 2)

    def end(self, sequence: Sequence, is_sound: bool = True) -> None:
        self.residency.end(sequence, is_sound=is_sound)
        del self.owed[sequence]
        assert sequence.slot is None and sequence.status is Status.FINISHED

    @invariant()
    def every_slot_has_one_holder(self) -> None:
        if not hasattr(self, "residency"):
            return
        residency, slots = self.residency, self.residency.slots
        assert len(residency.running) <= residency.max_sequences
        owners = [h.sequence for h in slots.held if h is not None and h.sequence is not None]
        assert len(owners) == len(residency.running) and set(owners) == set(residency.running)
        for slot, held in enumerate(slots.held):
            if held is not None:
                assert held.slot == slot
                assert held.sequence is None or held.sequence.slot == slot
        decoding = {s for s in residency.running if s.status is Status.DECODING}
        assert set(slots.decoding()) == decoding and slots.decoding_count == len(decoding)
        assert all(s.slot is None and s.kv_length == 0 for s in residency.waiting)

    @invariant()
    def all_kv_is_what_its_content_says(self) -> None:
        if not hasattr(self, "residency"):
            return
        for held in self.residency.slots.held:
            if held is not None:
                rows = self.cache.layers[0].key[held.slot, 0, : held.length, 0]
                assert rows.tolist() == kv_of(held.content)

    @invariant()
    def the_budget_holds_and_a_lone_sequence_could_always_end(self) -> None:
        if not hasattr(self, "residency"):
            return
        slots = self.residency.slots
        valid = sum(held.length for held in slots.held if held is not None)
        assert valid <= slots.budget.committed <= slots.budget.tokens
        assert sum(s.anchor for s in self.live) <= slots.budget.tokens - CONTEXT

    @invariant()
    def what_cannot_be_computed_again_is_there(self) -> None:
        if not hasattr(self, "residency"):
            return
        held_by = {s: h for h in self.residency.slots.held if h is not None for s in h.pins}
        for sequence in self.live:
            for index, span in enumerate(sequence.spans):
                is_lost = sequence.features[index] is None and index not in self.owed[sequence]
                assert not is_lost or span.end <= sequence.anchor
            if sequence.slot is not None:
                assert sequence.kv_length >= sequence.anchor and sequence not in held_by
            elif sequence.anchor:
                wanted = kv_of(sequence.content(sequence.anchor))
                held = held_by[sequence]
                assert held.pins[sequence] == sequence.anchor
                assert kv_of(held.content)[: sequence.anchor] == wanted
        assert set(held_by) <= set(self.residency.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "residency"):
            return
        for _ in range(200 + 60 * len(self.live)):
            for sequence, spans in self.owed.items():
                for index in sorted(spans):
                    sequence.set_features(index, NOTHING, self.now)
                spans.clear()
            if not self.live:
                break
            self.step(4)
            self.all_kv_is_what_its_content_says()
            self.the_budget_holds_and_a_lone_sequence_could_always_end()
        assert not self.live
        assert self.residency.slots.decoding_count == 0


TestResidency = ResidencyMachine.TestCase
TestResidency.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
