"""The table of sampling parameters agrees with the wire and holds its ranges."""

import math

import pytest

from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest
from protos.wire.sampling import MAX_LOGIT_BIASES, PARAMETERS, check


def test_every_number_of_the_wire_has_a_row_and_no_other() -> None:
    fields = {field.name for field in decoder_pb2.SamplingParams.DESCRIPTOR.fields}
    assert fields == {*PARAMETERS, "logit_bias"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_ends_of_a_range_are_taken_and_what_lies_outside_is_not(name: str) -> None:
    row = PARAMETERS[name]
    row.check(name, row.high)
    if not row.open_low:
        row.check(name, row.low)
    else:
        with pytest.raises(InvalidRequest, match="above"):
            row.check(name, row.low)
    for value in (row.low - 1, row.high + 1, math.nan):
        with pytest.raises(InvalidRequest) as refused:
            row.check(f"sampling_params.{name}", value)
        assert refused.value.param == f"sampling_params.{name}"


def test_unset_parameters_are_not_checked() -> None:
    check(decoder_pb2.SamplingParams(), vocab_size=10)


@pytest.mark.parametrize(
    ("biases", "place"),
    [
        ([(10, 1.0)], "[0].token_id"),
        ([(3, 1.0), (-1, 1.0)], "[1].token_id"),
        ([(1, 100.5)], "[0].bias"),
        ([(1, math.nan)], "[0].bias"),
        ([(1, 1.0), (1, 2.0)], "[1].token_id"),
        ([(token % 10, 1.0) for token in range(MAX_LOGIT_BIASES + 1)], ""),
    ],
)
def test_a_bad_bias_is_refused_by_its_place(biases: list[tuple[int, float]], place: str) -> None:
    params = decoder_pb2.SamplingParams(
        logit_bias=[decoder_pb2.LogitBias(token_id=token, bias=bias) for token, bias in biases]
    )
    with pytest.raises(InvalidRequest) as refused:
        check(params, vocab_size=10, prefix="sampling_params.")
    assert refused.value.param == f"sampling_params.logit_bias{place}"
    with pytest.raises(InvalidRequest) as refused:
        check(params, vocab_size=10)
    assert refused.value.param == "logit_bias"
