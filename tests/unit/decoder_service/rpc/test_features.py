"""Putting features together: any order, every row once."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.rpc.features import FeatureIntake, FeatureRows
from decoder_service.sequence.request import Span
from protos.wire.errors import InvalidRequest, Reason

SPANS = (Span(offset=0, length=4, digest=b""), Span(offset=5, length=3, digest=b""))


def intake(needed: tuple[int, ...] = (0, 1)) -> FeatureIntake:
    return FeatureIntake(SPANS, needed, level_count=2, hidden_size=3)


def rows(span: int, level: int, offset: int, count: int) -> FeatureRows:
    values = np.full((count, 3), 100 * span + 10 * level, np.float32) + np.arange(
        offset, offset + count, dtype=np.float32
    ).reshape(-1, 1)
    return FeatureRows(span_index=span, level=level, row_offset=offset, values=values)


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_order_of_pieces_gives_the_features(rng: random.Random) -> None:
    pieces = []
    for index, span in enumerate(SPANS):
        for level in range(2):
            at = 0
            while at < span.length:
                count = rng.randint(1, span.length - at)
                pieces.append(rows(index, level, at, count))
                at += count
    rng.shuffle(pieces)
    collected, done = intake(), {}
    for piece in pieces:
        assert not collected.is_complete
        values = collected.add(piece)
        if values is not None:
            done[piece.span_index] = values
    assert collected.is_complete and sorted(done) == [0, 1]
    for index, span in enumerate(SPANS):
        for level in range(2):
            wanted = rows(index, level, 0, span.length).values
            assert np.array_equal(done[index][level], wanted)


@pytest.mark.parametrize(
    "piece",
    [rows(2, 0, 0, 1), rows(-1, 0, 0, 1), rows(0, 2, 0, 1), rows(0, -1, 0, 1), rows(0, 0, 3, 2),
     rows(0, 0, -1, 1), rows(1, 0, 3, 1)],
)  # fmt: skip
def test_pieces_out_of_place_are_refused(piece: FeatureRows) -> None:
    with pytest.raises(InvalidRequest) as caught:
        intake().add(piece)
    assert caught.value.reason is Reason.INVALID_SPAN


def test_rows_that_came_before_are_refused_also_after_the_span_is_complete() -> None:
    collected = intake((1,))
    collected.add(rows(1, 0, 0, 2))
    with pytest.raises(InvalidRequest):
        collected.add(rows(1, 0, 1, 2))
    collected.add(rows(1, 0, 2, 1))
    assert collected.add(rows(1, 1, 0, 3)) is not None
    with pytest.raises(InvalidRequest):
        collected.add(rows(1, 1, 0, 3))


def test_a_span_that_is_not_needed_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        intake((1,)).add(rows(0, 0, 0, 1))


def test_the_error_of_an_early_end_counts_rows() -> None:
    collected = intake()
    collected.add(rows(0, 0, 0, 3))
    assert "3 of 8 rows" in collected.missing().message
