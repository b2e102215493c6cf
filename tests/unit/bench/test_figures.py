"""How the benchmark makes numbers of seconds."""

import pytest

from tests.bench.figures import (
    FIGURES,
    SHAPES,
    compare,
    gaps,
    paired_ratio,
    percentile,
    weight_bits,
)


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    rounds = [
        {"tandem": 1.0, "openvino": 2.0},
        {"tandem": 10.0, "openvino": 21.0},  # the machine slowed down for both
        {"tandem": 1.0, "openvino": 2.2},
    ]
    assert paired_ratio(rounds, slower="openvino", faster="tandem") == pytest.approx(2.1)


def test_rounds_without_one_of_the_two_do_not_count() -> None:
    rounds = [{"tandem": 1.0}, {"tandem": 1.0, "genai": 3.0}, {"genai": 9.0}]
    assert paired_ratio(rounds, slower="genai", faster="tandem") == 3.0
    assert paired_ratio(rounds, slower="llamacpp", faster="tandem") is None


def test_the_best_peer_is_the_one_beaten_least() -> None:
    rounds = [{"tandem": 0.1, "openvino": 0.15, "llamacpp": 0.3}]
    found = compare(FIGURES["decode-8-256"], rounds, {"genai": "genai has ended"})
    assert found.best_peer == "openvino"
    assert found.ratio == pytest.approx(1.5)
    assert found.tokens_per_second == pytest.approx(
        {"tandem": 80.0, "openvino": 8 / 0.15, "llamacpp": 8 / 0.3}
    )
    assert found.errors == {"genai": "genai has ended"}


def test_a_comparison_without_us_or_without_peers_has_no_ratio() -> None:
    figure = FIGURES["prefill-1024"]
    cases: list[list[dict[str, float]]] = [[{"openvino": 1.0}], [{"tandem": 1.0}], [{}], []]
    for rounds in cases:
        found = compare(figure, rounds, {})
        assert found.best_peer is None
        assert found.ratio is None


def test_prefill_speed_counts_the_prompt() -> None:
    found = compare(FIGURES["prefill-1024"], [{"tandem": 4.0}, {"tandem": 2.0}], {})
    assert found.tokens_per_second["tandem"] == pytest.approx(1024 / 3)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 1.0) == 100.0
    assert percentile([5.0], 0.99) == 5.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_or_outside_its_range_is_refused(
    values: list[float], share: float
) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_gaps_end_within_the_window() -> None:
    arrivals = [0.0, 1.0, 3.0, 6.0, 10.0]
    assert gaps(arrivals, first=1.5, last=6.0) == [2.0, 3.0]


def test_the_shapes_weigh_what_the_checkpoints_weigh() -> None:
    assert SHAPES["2b"].weight_count == 1_720_451_072  # 1.41 G in layers, 0.31 G in the head
    assert SHAPES["2b"].kv_bytes(256, 4) == 256 * 229_376
    assert weight_bits("int4", 128) == 4.25
    assert weight_bits("int8", None) == 8
    assert weight_bits("fp32", None) == 32
