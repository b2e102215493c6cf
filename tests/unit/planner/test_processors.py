"""Processors around the models: what they cost, who shares a core, how many are needed."""

from typing import Any

import pytest

from planner.costs import Costs
from planner.fields import PlanError
from planner.processors import MOST_BUSY, Processor, cores_for
from tests.unit.planner.costs_file import costs_object


def test_a_request_costs_itself_its_image_and_its_tokens() -> None:
    cost = Processor(request_s=1.0, image_s=10.0, patch_s=0.5, token_s=0.25)
    assert cost.seconds(patches=0, tokens=4) == 2.0
    assert cost.seconds(patches=8, tokens=4) == 16.0


def test_cores_are_as_few_as_leave_each_some_time() -> None:
    assert cores_for(0.0) == (0, 0.0)
    assert cores_for(MOST_BUSY / 3) == pytest.approx((1, MOST_BUSY / 3))
    assert cores_for(2.5 * MOST_BUSY) == pytest.approx((3, 2.5 * MOST_BUSY / 3))


def test_files_without_processors_or_cores_have_none() -> None:
    costs = Costs.of(costs_object())
    assert (costs.processors, costs.cores) == ({}, ())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"processors": 3}, "processors is 3, expected an object"),
        ({"processors": {"proxy": {}}}, "processors has proxy, expected some of gateway, front"),
        ({"processors": {"front": []}}, "processors.front is a list of 0, expected an object"),
        ({"processors": {"front": {"byte_s": 1}}}, "processors.front has byte_s, expected some of"),
        ({"processors": {"front": {"token_s": -1}}}, "front.token_s is -1, expected at least 0"),
        ({"step_beside_pass": 0}, "step_beside_pass is 0, expected more than 0"),
        ({"cores": "all"}, 'cores is "all", expected a list'),
        ({"cores": ["decoder"]}, 'cores[0] is "decoder", expected a list of services'),
        ({"cores": [["proxy"]]}, 'cores[0] has "proxy", expected replica, decoder, gateway'),
        ({"cores": [["front"], ["front"]]}, "cores[1] has front once more, expected it on one"),
        (
            {"processors": {"front": {"idle": 0.95}}, "cores": [["front"]]},
            "idle of all on cores[0] is 0.95, expected at most 0.9",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as caught:
        Costs.of(costs_object(**changed))
    assert said in str(caught.value)
