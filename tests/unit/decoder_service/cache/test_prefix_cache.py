"""What is found again: by token ids, positions, images and salt, and where it is continued."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.engine.step import StepExecutor
from decoder_service.schedule.residency import Admission, Residency
from decoder_service.schedule.scheduler import PrefillChunk, StepPlan
from decoder_service.sequence.content import Content, common_prefix
from decoder_service.sequence.request import Completion, Request, Token
from decoder_service.sequence.sequence import Sequence, Status
from tests.unit.decoder_service.fakes import make_executor, make_request, random_features

CAT, DOG = b"cat", b"dog"


def content(request: Request) -> Content:
    sequence = Sequence(request, arrival=0.0)
    return sequence.content(sequence.history_length)


def image(digest: bytes, text: int, salt: bytes = b"") -> Request:
    """Six tokens of text, an image of eight, and six more."""
    ids = [1] * 14 + [text] * 6
    return make_request(ids, span_places=[(6, 8)], digests=[digest], salt=salt, max_tokens=6)


def test_the_same_image_in_the_same_place_is_found_and_another_is_not() -> None:
    cat = content(image(CAT, 2))
    assert common_prefix(cat, cat) == 20
    assert common_prefix(cat, content(image(CAT, 3))) == 14
    assert common_prefix(cat, content(image(DOG, 2))) == 6
    assert common_prefix(cat, content(image(b"", 2))) == 6
    assert common_prefix(content(image(b"", 2)), content(image(b"", 2))) == 6
    assert common_prefix(cat, content(image(CAT, 2, salt=b"tenant"))) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positions_must_agree_on_every_axis(axis: int) -> None:
    one = content(make_request(range(10)))
    positions = one.position_ids.copy()
    positions[axis, 7] += 1
    other = Content(token_ids=one.token_ids, position_ids=positions)
    assert common_prefix(one, other) == 7


def test_images_that_are_cut_differently_end_the_prefix_before_both() -> None:
    ids = [1] * 12
    whole = content(make_request(ids, span_places=[(2, 8)], digests=[CAT]))
    parts = content(make_request(ids, span_places=[(2, 4), (6, 4)], digests=[CAT, CAT]))
    assert common_prefix(whole, parts) == common_prefix(parts, whole) == 2


@given(
    one=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    other=st.lists(st.integers(0, 2), min_size=1, max_size=12),
)
def test_a_prefix_is_the_longest_and_the_same_from_both_sides(
    one: list[int], other: list[int]
) -> None:
    length = common_prefix(content(make_request(one)), content(make_request(other)))
    assert length == common_prefix(content(make_request(other)), content(make_request(one)))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


class Bench:
    """An executor driven to the end, one request after the other."""

    def __init__(
        self, folder: Path, *, max_sequences: int = 4, token_budget: int | None = None
    ) -> None:
        self.executor, self.runner = make_executor(
            folder, chunk=64, max_sequences=max_sequences, token_budget=token_budget
        )
        self.residency: Residency = self.executor.residency

    def begin(self, request: Request) -> tuple[Sequence, Admission]:
        sequence = Sequence(request, arrival=0.0)
        admission = self.residency.arrive(sequence)
        return sequence, admission

    def give(self, sequence: Sequence, admission: Admission) -> None:
        for index in admission.needed_spans:
            values = random_features(5, sequence.spans[index].length)
            sequence.set_features(index, values, 0.0)

    def finish(self) -> dict[Sequence, tuple[list[int], Completion]]:
        tokens: dict[Sequence, list[int]] = {}
        ended: dict[Sequence, tuple[list[int], Completion]] = {}
        step = 0
        while self.residency.waiting or self.residency.running:
            step += 1
            self.residency.admit(0.0)
            for sequence, event in self.executor.run(self.residency.plan(step, 64, 0.0), step):
                if isinstance(event, Token):
                    tokens.setdefault(sequence, []).append(event.token_id)
                else:
                    assert isinstance(event, Completion)
                    ended[sequence] = (tokens.get(sequence, []), event)
        return ended

    def answer(self, request: Request) -> tuple[list[int], Completion, Admission]:
        sequence, admission = self.begin(request)
        self.give(sequence, admission)
        return *self.finish()[sequence], admission


def test_a_second_question_about_a_image_needs_neither_features_nor_prefill(
    tmp_path: Path,
) -> None:
    fresh, used = Bench(tmp_path), Bench(tmp_path)
    used.answer(image(CAT, 2))
    tokens, completion, admission = used.answer(image(CAT, 3))
    assert admission.needed_spans == () and admission.cached_tokens == 14
    assert completion.cached_tokens == 14 and completion.timings.features_ms == 0
    assert tokens == fresh.answer(image(CAT, 3))[0]
    assert used.runner.chunk_sizes == [20, 6]
    assert used.answer(image(DOG, 3))[2].needed_spans == (0,)


def test_a_follow_up_turn_finds_the_answer_too_and_copies_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, _, _ = bench.answer(make_request([1] * 20, max_tokens=9))
    following = make_request([1] * 20 + first + [2, 3], max_tokens=4)
    copies: list[int] = []
    bench.runner.cache.copy = lambda *places: copies.append(1)  # type: ignore[method-assign]
    tokens, completion, _ = bench.answer(following)
    assert completion.cached_tokens == 20 + 8
    assert copies == []
    assert tokens == Bench(tmp_path).answer(following)[0]


def test_many_questions_about_one_image_each_get_a_copy_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.answer(image(CAT, 2))
    many = [bench.begin(image(CAT, text)) for text in (3, 4, 5)]
    assert all(admission.needed_spans == () for _, admission in many)
    ended = bench.finish()
    for text, (sequence, _) in zip((3, 4, 5), many, strict=True):
        assert ended[sequence][0] == Bench(tmp_path).answer(image(CAT, text))[0]
        assert ended[sequence][1].cached_tokens == 14


def test_what_a_running_sequence_has_is_found_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, admission = bench.begin(image(CAT, 2))
    bench.give(first, admission)
    bench.residency.admit(0.0)
    bench.executor.run(StepPlan((), (PrefillChunk(first, 0, 20),)), 1)
    second, admission = bench.begin(image(CAT, 3))
    assert admission == Admission(cached_tokens=14, needed_spans=())
    ended = bench.finish()
    assert ended[second][0] == Bench(tmp_path).answer(image(CAT, 3))[0]


def test_a_promised_image_survives_whatever_comes_before_its_turn(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_sequences=1, token_budget=128)
    bench.answer(image(CAT, 2))
    promised, admission = bench.begin(image(CAT, 3))
    assert admission.needed_spans == ()
    urgent = make_request([4] * 50, max_tokens=14, priority=50)
    sequence, _ = bench.begin(urgent)
    ended = bench.finish()
    assert list(ended) == [sequence, promised]
    assert ended[promised][0] == Bench(tmp_path).answer(image(CAT, 3))[0]


def test_a_promise_ends_with_its_sequence(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_sequences=1, token_budget=128)
    bench.answer(image(CAT, 2))
    promised, _ = bench.begin(image(CAT, 3))
    bench.residency.end(promised)
    assert all(held is None or not held.pins for held in bench.residency.slots.held)
    bench.answer(make_request([4] * 60, max_tokens=4))
    bench.answer(make_request([5] * 60, max_tokens=4))
    assert bench.begin(image(CAT, 3))[1].needed_spans == (0,)


def test_a_failed_sequence_leaves_nothing_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bad, admission = bench.begin(image(CAT, 2))
    bench.residency.admit(0.0)
    bad.set_features(0, np.full((3, 8, 8), np.nan, np.float32), 0.0)
    bench.executor.run(StepPlan((), (PrefillChunk(bad, 0, 20),)), 1)
    assert bad.status is Status.FINISHED
    assert bench.begin(image(CAT, 2))[1].cached_tokens == 0


def run_preempted(executor: StepExecutor, request: Request, every: int) -> list[int]:
    """Its tokens when it loses its slot again and again."""
    residency, tokens, step = executor.residency, list[int](), 0
    sequence = Sequence(request, arrival=0.0)
    for index in residency.arrive(sequence).needed_spans:
        sequence.set_features(index, random_features(index, sequence.spans[index].length), 0.0)
    while sequence.status is not Status.FINISHED:
        step += 1
        residency.admit(0.0)
        plan = residency.plan(step, 3, 0.0)
        for _, event in executor.run(plan, step):
            if isinstance(event, Token):
                tokens.append(event.token_id)
        if step % every == 0 and sequence.slot is not None:
            residency.preempt(sequence)
    return tokens


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3, "top_k": 9}])
@pytest.mark.parametrize("least_kept", [1, 1000])
def test_a_preempted_sequence_gives_the_same_tokens(
    tmp_path: Path, sampling: dict[str, float], least_kept: int
) -> None:
    request = make_request(
        [1] * 20, span_places=[(3, 5), (10, 4)], max_tokens=25, sampling=sampling
    )
    results = []
    for every in (1000, 7, 3):
        # Without room for anchors its features stay, and everything is computed again.
        budget = 64 if least_kept > 1 else None
        executor, _ = make_executor(tmp_path, chunk=64, token_budget=budget)
        executor.residency.slots.prefixes.least_kept = least_kept
        results.append(run_preempted(executor, request, every))
    assert len(results[0]) == 25 and results[1] == results[2] == results[0]
