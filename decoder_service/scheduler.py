"""Who runs next: pure policy over plain data, testable without a model.

A step decodes one token of every decoding sequence and prefills at most a budget of prompt
tokens beside them, so neither running streams nor arriving prompts starve. Its first chunk runs
together with the decoding sequences, in one pass over the weights; further ones (rests of short
prompts) run by themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from decoder_service.sequence import Sequence, Status


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt tokens `start` to `stop` of one sequence."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Whether the prompt is complete after it."""
        return self.stop == self.sequence.request.prompt_length


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the engine runs in one step."""

    decode: tuple[Sequence, ...]
    prefill: tuple[PrefillChunk, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.decode and not self.prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Admission and step planning; it looks and never changes a sequence.

    Attributes:
        prefill_chunk_tokens: Most prompt tokens of a step while nothing decodes.
        aging_s: Waiting this long counts as one point of priority, so that a sequence of
            the lowest priority passes one of the highest after 200 times this.
        aging_tokens: A prompt passed over in a step counts as this much shorter in the next.
    """

    prefill_chunk_tokens: int
    aging_s: float = 1.0
    aging_tokens: int = 64

    def admissions(
        self, waiting: Iterable[Sequence], free_slots: int, now: float
    ) -> list[Sequence]:
        """Waiting sequences that get the free slots, most urgent first.

        Args:
            waiting: Sequences without a slot, in order of arrival.
            free_slots: Slots to give away.
            now: `time.monotonic` seconds.
        """
        if free_slots == 0:
            return []
        return sorted(waiting, key=lambda sequence: -self._urgency(sequence, now))[:free_slots]

    def _urgency(self, sequence: Sequence, now: float) -> float:
        return sequence.request.priority + (now - sequence.times.arrival) / self.aging_s

    def plan(self, running: Iterable[Sequence], step: int, mixed_tokens: int) -> StepPlan:
        """The next step.

        Short rests of prompts come first, because they turn into streams soonest; a prompt
        that is passed over ages, so a long one waits a bounded number of steps.

        Args:
            running: Sequences that hold a slot.
            step: Number of this step; grows by one each time.
            mixed_tokens: Most prompt tokens of the step if sequences decode; they wait for it.
        """
        running = list(running)
        decode = tuple(s for s in running if s.status is Status.DECODING)
        budget = mixed_tokens if decode else self.prefill_chunk_tokens
        ready = sorted(
            (s for s in running if s.prefillable_count > 0),
            key=lambda s: s.prefillable_count - self.aging_tokens * (step - s.served_step),
        )
        chunks = []
        for sequence in ready:
            if budget == 0:
                break
            count = min(budget, sequence.prefillable_count)
            start = sequence.kv_length
            chunks.append(PrefillChunk(sequence, start, start + count))
            budget -= count
        return StepPlan(decode, tuple(chunks))
