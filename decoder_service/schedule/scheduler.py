"""Who runs next: pure policy over plain data, testable without a model.

A step decodes one token of every decoding sequence and prefills at most a budget of prompt
tokens beside them, so neither running streams nor arriving prompts starve. All of it is one pass
over the weights: several short prompts are prefilled in one step as far as the budget goes.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from decoder_service.sequence.sequence import Sequence, Status


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Tokens `start` to `stop` of one sequence's history."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Whether KV of the history is complete after it."""
        return self.stop == self.sequence.history_length


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the engine runs in one step.

    Attributes:
        decode: Everything that decodes, in the order of slots.
        prefill: One chunk each of some prompts.
    """

    decode: tuple[Sequence, ...]
    prefill: tuple[PrefillChunk, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decode and not self.prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Order of admission and step planning; it looks and never changes a sequence.

    Attributes:
        prefill_chunk_tokens: Most prompt tokens of a step while nothing decodes.
        aging_s: Waiting this long counts as one point of priority, so that a sequence of
            the lowest priority passes one of the highest after 200 times this.
        aging_tokens: A prompt passed over in a step counts as this much shorter in the next.
        preemption_margin: Points of priority by which a waiting sequence must be more urgent
            than a running one to take its slot.
        tenant_share: Points of priority that each running sequence of its tenant costs a waiting
            one, so that tenants with enough waiting run equally many.
    """

    prefill_chunk_tokens: int
    aging_s: float = 1.0
    aging_tokens: int = 64
    preemption_margin: float = 10.0
    tenant_share: float = 10.0

    def most_urgent(
        self, waiting: Iterable[Sequence], running: Iterable[Sequence], now: float
    ) -> Sequence | None:
        """Who gets the next slot: the most urgent, and of equals the first to have come.

        A tenant that has slots already is less urgent, so that one with many waiting sequences
        does not keep another's single one waiting.

        Args:
            waiting: Sequences without a slot.
            running: Sequences with one.
            now: `time.monotonic` seconds.
        """
        slots = Counter(sequence.request.tenant for sequence in running)

        def rank(sequence: Sequence) -> tuple[float, float]:
            urgency, first = self._rank(sequence, now)
            return urgency - self.tenant_share * slots[sequence.request.tenant], first

        return max(waiting, key=rank, default=None)

    def least_urgent(self, sequences: Iterable[Sequence], now: float) -> Sequence:
        """Who loses its slot, or its place, first; there must be one."""
        return min(sequences, key=lambda sequence: self._rank(sequence, now))

    def refused(
        self, waiting: Collection[Sequence], running: Iterable[Sequence], now: float
    ) -> Sequence | None:
        """Who gives its place in a full queue to a tenant that has fewer sequences.

        The least urgent of the tenant that has most; None where all have equally many.

        Args:
            waiting: Sequences without a slot that nothing was done for yet.
            running: All others.
            now: `time.monotonic` seconds.
        """
        places = Counter(sequence.request.tenant for sequence in (*waiting, *running))
        fewest = min(places.values(), default=0)
        most = max((places[sequence.request.tenant] for sequence in waiting), default=0)
        if most <= fewest:
            return None
        those = [s for s in waiting if places[s.request.tenant] == most]
        return self.least_urgent(those, now)

    def yielding(self, running: Iterable[Sequence], to: Sequence, now: float) -> list[Sequence]:
        """Running sequences that may lose their slots to a waiting one, the first to go first.

        Both sides age alike, so two sequences never take slots from each other by turns.
        """
        bar = self._rank(to, now)[0] - self.preemption_margin
        less = [sequence for sequence in running if self._rank(sequence, now)[0] < bar]
        return sorted(less, key=lambda sequence: self._rank(sequence, now))

    def _rank(self, sequence: Sequence, now: float) -> tuple[float, float]:
        arrival = sequence.times.arrival
        return sequence.request.priority + (now - arrival) / self.aging_s, -arrival

    def plan(self, running: Iterable[Sequence], step: int, mixed_tokens: int) -> StepPlan:
        """The next step.

        Short rests of prompts come first, because they turn into streams soonest; a prompt
        that is passed over ages, so a long one waits a bounded number of steps.

        Args:
            running: Sequences that hold a slot.
            step: Number of this step; grows by one each time.
            mixed_tokens: Most prompt tokens of the step if sequences decode; they wait for it.
        """
        decode, ready = list[Sequence](), list[tuple[Sequence, int]]()
        for sequence in running:
            if sequence.status is Status.DECODING:
                decode.append(sequence)
            elif (count := sequence.prefillable_count) > 0:
                ready.append((sequence, count))
        decode.sort(key=lambda s: s.held_slot)
        ready.sort(key=lambda one: one[1] - self.aging_tokens * (step - one[0].served_step))
        budget = mixed_tokens if decode else self.prefill_chunk_tokens
        chunks = []
        for sequence, prefillable in ready:
            if budget == 0:
                break
            count = min(budget, prefillable)
            start = sequence.kv_length
            chunks.append(PrefillChunk(sequence, start, start + count))
            budget -= count
        return StepPlan(tuple(decode), tuple(chunks))
