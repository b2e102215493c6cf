"""Slots: never shared, never leaked, and KV that follows its sequence."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from decoder_service.kv_cache import KvCache, Slots
from decoder_service.sequence import Sequence
from tests.unit.decoder.fakes import make_request


class SlotsMachine(RuleBasedStateMachine):
    """Sequences come, grow, decode and leave in any order; each writes its own mark."""

    @initialize(slot_count=st.integers(1, 6))
    def start(self, slot_count: int) -> None:
        self.cache = KvCache(
            layer_count=2, slot_count=slot_count, head_count=2, max_length=16, head_dim=3
        )
        self.slots = Slots(self.cache)
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self.marks: dict[Sequence, int] = {}
        self.next_mark = 1

    def write(self, sequence: Sequence, count: int) -> None:
        start, stop = sequence.kv_length, min(16, sequence.kv_length + count)
        for index, layer in enumerate(self.cache.layers):
            for side, buffer in enumerate(layer):
                places = np.arange(start, stop) + 100 * index + 1000 * side
                buffer[sequence.slot, :, start:stop] = (self.marks[sequence] * 10_000 + places)[
                    :, None
                ]
        sequence.kv_length = stop

    @precondition(lambda self: self.slots.free_count > 0)
    @rule(count=st.integers(0, 5))
    def admit(self, count: int) -> None:
        sequence = Sequence(make_request(), arrival=0.0)
        self.marks[sequence] = self.next_mark
        self.next_mark += 1
        self.slots.allocate(sequence)
        self.prefilling.append(sequence)
        self.write(sequence, count)

    @precondition(lambda self: self.prefilling)
    @rule(data=st.data(), count=st.integers(1, 8))
    def prefill(self, data: st.DataObject, count: int) -> None:
        self.write(data.draw(st.sampled_from(self.prefilling)), count)

    @precondition(lambda self: self.prefilling)
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.prefilling))
        self.slots.promote(sequence)
        self.prefilling.remove(sequence)
        self.decoding.append(sequence)

    @rule()
    def decode(self) -> None:
        for sequence in self.slots.decoding():
            self.write(sequence, 1)

    @precondition(lambda self: self.prefilling or self.decoding)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.prefilling + self.decoding))
        self.slots.release(sequence)
        (self.prefilling if sequence in self.prefilling else self.decoding).remove(sequence)

    @invariant()
    def every_slot_has_one_owner(self) -> None:
        if not hasattr(self, "slots"):
            return
        held = self.prefilling + self.decoding
        owners = self.slots.owners
        assert len({s.slot for s in held}) == len(held)
        assert all(s.slot is not None and owners[s.slot] is s for s in held)
        assert sum(owner is None for owner in owners) == self.slots.free_count
        assert self.slots.free_count + len(held) == len(owners)

    @invariant()
    def decoding_sequences_hold_the_first_slots(self) -> None:
        if hasattr(self, "slots"):
            assert set(self.slots.decoding()) == set(self.decoding)
            assert sorted(s.slot or 0 for s in self.decoding) == list(range(len(self.decoding)))

    @invariant()
    def every_sequence_finds_its_own_kv(self) -> None:
        if not hasattr(self, "slots"):
            return
        for sequence in self.prefilling + self.decoding:
            for index, layer in enumerate(self.cache.layers):
                for side, buffer in enumerate(layer):
                    places = np.arange(sequence.kv_length) + 100 * index + 1000 * side
                    wanted = self.marks[sequence] * 10_000 + places
                    rows = buffer[sequence.slot, :, : sequence.kv_length]
                    assert (rows == wanted[None, :, None]).all()


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_new_sequence_takes_the_slot_behind_the_decoding_ones_and_needs_no_move() -> None:
    slots = Slots(KvCache(layer_count=1, slot_count=3, head_count=1, max_length=4, head_dim=2))
    first, second = (Sequence(make_request(), arrival=0.0) for _ in range(2))
    slots.allocate(first)
    slots.promote(first)
    slots.allocate(second)
    slots.promote(second)
    assert (first.slot, second.slot) == (0, 1)
    slots.release(first)
    assert second.slot == 0
