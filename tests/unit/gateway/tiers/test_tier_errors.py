"""Errors of the tiers in the client's words."""

import pytest

from gateway.tiers.convert import decoder_error_for_client, vision_error_for_client
from protos.wire.errors import DeadlineExceeded, InvalidRequest, Overloaded, Reason

PLACE = "messages[0].content[1]"


@pytest.mark.parametrize(
    ("param", "named"),
    [
        ("sampling_params.top_p", "top_p"),
        ("sampling_params.logit_bias[3].token_id", "logit_bias"),
        ("stop_conditions.stop_token_ids[0]", "stop_token_ids"),
        ("report_options.top_logprob_count", "top_logprobs"),
        ("input_ids", "messages"),
        ("priority", "priority"),
        (None, None),
    ],
)
def test_fields_of_the_decoder_get_their_names_at_the_door(
    param: str | None, named: str | None
) -> None:
    error = decoder_error_for_client(InvalidRequest("wrong", param=param))
    assert (error.reason, error.param) == (Reason.INVALID_PARAMETER, named)


@pytest.mark.parametrize("param", ["position_ids", "features.chunk.level", "bundle_digest"])
def test_fields_no_client_can_set_are_our_own_error(param: str) -> None:
    error = decoder_error_for_client(InvalidRequest("wrong", param=param))
    assert (error.reason, error.message) == (Reason.INTERNAL, "internal error")
    error = vision_error_for_client(InvalidRequest("wrong", param=param), field=PLACE)
    assert error.reason is Reason.INTERNAL


def test_other_errors_keep_reason_and_delay_but_not_inner_names() -> None:
    late = decoder_error_for_client(DeadlineExceeded("late", param="features"))
    assert (late.reason, late.param) == (Reason.DEADLINE_EXCEEDED, None)
    full = vision_error_for_client(Overloaded("full", retry_after_s=2.5), field=PLACE)
    assert (full.reason, full.param, full.retry_after_s) == (Reason.QUEUE_FULL, None, 2.5)


@pytest.mark.parametrize("param", ["image", None])
def test_a_refused_image_is_named_by_its_place(param: str | None) -> None:
    refused = InvalidRequest("damaged", reason=Reason.INVALID_IMAGE, param=param)
    error = vision_error_for_client(refused, field=PLACE)
    assert (error.reason, error.param) == (Reason.INVALID_IMAGE, PLACE)
