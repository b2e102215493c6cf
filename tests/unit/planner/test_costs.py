"""Files of costs: the curves through their points, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from planner.costs import Costs, Curve
from planner.fields import PlanError
from tests.unit.planner.costs_file import costs_object, write_costs


def test_a_curve_finds_the_terms_its_points_were_made_of() -> None:
    points = [(n, 0.01 + 0.002 * n + 2e-6 * n * n) for n in (100.0, 400.0, 900.0, 2000.0)]
    curve = Curve.through(points)
    assert curve.start_s == pytest.approx(0.01)
    assert curve.linear_s == pytest.approx(0.002)
    assert curve.square_s == pytest.approx(2e-6)


def test_no_term_is_negative_whatever_the_points_say() -> None:
    curve = Curve.through([(100.0, 0.5), (200.0, 0.4), (400.0, 0.6)])
    assert min(curve.start_s, curve.linear_s, curve.square_s) >= 0


def test_one_point_gives_a_line_through_it_and_through_nothing() -> None:
    assert Curve.through([(100.0, 0.5)]).seconds(300) == pytest.approx(1.5)


def test_squares_of_a_joint_pass_are_each_size_s_own() -> None:
    assert Curve(1.0, 0.0, 1.0).seconds(2, 3) == 1 + 4 + 9


def test_steps_lie_on_lines_between_what_was_measured_and_beyond() -> None:
    steps = Costs.of(costs_object()).steps
    assert steps.seconds(2, 2 * 128, []) == pytest.approx(0.024)
    assert steps.seconds(32, 32 * 128, []) == pytest.approx(0.084)
    # The weights are read once: what decodes pays for the start of the prompt's tokens.
    assert steps.seconds(0, 0, [(0, 100)]) == pytest.approx(0.24)
    assert steps.seconds(4, 4 * 128, [(0, 100)]) == pytest.approx(0.028 + 0.22)


def test_longer_contexts_make_steps_longer_as_measured() -> None:
    rows = [
        {"sequences": 4, "context": 128, "seconds": 0.028},
        {"sequences": 4, "context": 1128, "seconds": 0.048},
    ]
    steps = Costs.of(costs_object(decode=rows)).steps
    assert steps.seconds(4, 4 * 628, []) == pytest.approx(0.038)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"overhead_s": "fast"}, 'overhead_s is "fast", expected a number'),
        ({"overhead_s": -1}, "overhead_s is -1, expected at least 0"),
        ({"encode": []}, "encode is a list of 0, expected a list of at least one measurement"),
        ({"encode": [{"patches": 4}]}, "encode[0] has no seconds"),
        ({"encode": [{"patches": 0, "seconds": 1}]}, "encode[0].patches is 0, expected more"),
        ({"decode": [7]}, "decode[0] is 7, expected an object"),
        ({"step_spread": [1, 2]}, "step_spread is a list of 2, expected a list of 101"),
        ({"decoder": {"slots": 1}}, "decoder has no waiting"),
        ({"decoder": 3}, "decoder is 3, expected an object"),
        ({"startup_s": {"vision": None}}, "startup_s.vision is null, expected a number"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_costs(tmp_path / "costs.json", **changed)
    with pytest.raises(PlanError) as caught:
        Costs.open(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
