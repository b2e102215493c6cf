"""How long a chunk beside running streams may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.schedule.pacing import STRETCH, ChunkPacer


def paced(
    *, step_s: float, fixed_s: float, token_s: float, most: int = 256, steps: int = 40
) -> tuple[ChunkPacer, float]:
    """A pacer after some steps of a machine, and how long its last mixed step took."""
    pacer, seconds = ChunkPacer(most), 0.0
    for _ in range(3):
        pacer.observe(decode_count=8, chunk_tokens=0, seconds=step_s)
    for _ in range(steps):
        tokens = pacer.chunk_tokens(8)
        seconds = step_s + fixed_s + tokens * token_s
        pacer.observe(decode_count=8, chunk_tokens=tokens, seconds=seconds)
    return pacer, seconds


@given(
    step_s=st.floats(0.01, 0.5),
    fixed=st.floats(0.0, 0.5),
    tokens=st.integers(16, 200),
)
def test_mixed_steps_settle_at_what_streams_are_to_bear(
    step_s: float, fixed: float, tokens: int
) -> None:
    token_s = (STRETCH - 1 - fixed) * step_s / tokens
    _, seconds = paced(step_s=step_s, fixed_s=fixed * step_s, token_s=token_s)
    assert seconds <= (STRETCH + 0.1) * step_s
    assert seconds >= 1.4 * step_s  # and does not waste what streams can bear


def test_a_slow_machine_still_makes_progress_and_a_fast_one_keeps_to_the_setting() -> None:
    slow, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1.0)
    assert slow.chunk_tokens(8) == 4
    fast, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1e-6)
    assert fast.chunk_tokens(8) == 256
    free, _ = paced(step_s=0.1, fixed_s=-0.01, token_s=0.0)
    assert free.chunk_tokens(8) == 256


def test_what_is_not_measured_begins_carefully() -> None:
    assert ChunkPacer(256).chunk_tokens(4) == 32
    assert ChunkPacer(5).chunk_tokens(4) == 5


def test_another_batch_is_judged_by_the_nearest_that_was_seen() -> None:
    pacer = ChunkPacer(256)
    pacer.observe(decode_count=2, chunk_tokens=0, seconds=0.1)
    pacer.observe(decode_count=8, chunk_tokens=0, seconds=0.4)
    pacer.observe(decode_count=8, chunk_tokens=100, seconds=0.8)
    assert pacer.chunk_tokens(7) == pacer.chunk_tokens(8) > pacer.chunk_tokens(3)
    assert pacer.chunk_tokens(8) == pytest.approx((STRETCH - 1) * 0.4 / 0.004, abs=8)


def test_a_batch_never_seen_alone_teaches_nothing() -> None:
    pacer = ChunkPacer(256)
    pacer.observe(decode_count=8, chunk_tokens=0, seconds=0.06)
    pacer.observe(decode_count=8, chunk_tokens=32, seconds=0.12)
    before = pacer.chunk_tokens(8)
    for seconds in (0.03, 0.03, 0.03, 0.5, 0.5, 0.5):  # less than eight rows alone, and more
        pacer.observe(decode_count=1, chunk_tokens=32, seconds=seconds)
        assert pacer.chunk_tokens(8) == before


def test_chunks_grow_stepwise_towards_what_was_never_tried() -> None:
    pacer, sizes = ChunkPacer(256), []
    pacer.observe(decode_count=8, chunk_tokens=0, seconds=0.1)
    for _ in range(5):
        sizes.append(pacer.chunk_tokens(8))
        pacer.observe(decode_count=8, chunk_tokens=sizes[-1], seconds=0.1)
    assert sizes == [32, 64, 128, 256, 256]


def test_prompts_alone_teach_nothing_about_streams() -> None:
    pacer = ChunkPacer(256)
    pacer.observe(decode_count=0, chunk_tokens=128, seconds=9.0)
    pacer.observe(decode_count=2, chunk_tokens=64, seconds=9.0)
    assert pacer.chunk_tokens(2) == 32
    cheap, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1e-3, steps=1)
    before = cheap.chunk_tokens(8)
    cheap.observe(decode_count=0, chunk_tokens=256, seconds=0.2)
    assert cheap.chunk_tokens(8) == before == 64


def test_one_slow_step_does_not_let_streams_wait_longer_from_then_on() -> None:
    pacer, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1e-3)
    before = pacer.chunk_tokens(8)
    pacer.observe(decode_count=8, chunk_tokens=0, seconds=60.0)
    assert before <= pacer.chunk_tokens(8) <= 1.3 * before


def test_tokens_that_become_dearer_are_noticed_sooner_than_cheaper_ones() -> None:
    dearer, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1e-3)
    cheaper, _ = paced(step_s=0.1, fixed_s=0.0, token_s=1e-3)
    for _ in range(2):
        for pacer, token_s in ((dearer, 2e-3), (cheaper, 0.5e-3)):
            tokens = pacer.chunk_tokens(8)
            pacer.observe(decode_count=8, chunk_tokens=tokens, seconds=0.1 + tokens * token_s)
    assert dearer.chunk_tokens(8) <= 60  # from 100 towards 50
    assert 112 <= cheaper.chunk_tokens(8) <= 150  # from 100 towards 200


def test_chunks_have_few_lengths_and_never_grow_from_a_single_token() -> None:
    pacer, _ = paced(step_s=0.1, fixed_s=0.0, token_s=0.0013)
    assert pacer.chunk_tokens(8) == 76  # 76.9 would do
    pacer.observe(decode_count=8, chunk_tokens=1, seconds=0.1013)
    assert pacer.chunk_tokens(8) == 8
