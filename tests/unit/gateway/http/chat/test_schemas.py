"""The HTTP door takes every number the wire has, by its name."""

import pytest

from gateway.http.chat.schemas import ChatCompletionRequest
from protos.tandem.v1.decoder_pb2 import SamplingParams
from protos.wire.sampling import PARAMETERS
from tests.unit.gateway.stage import Stage, user


def test_every_parameter_of_the_wire_is_a_field() -> None:
    assert {*PARAMETERS, "logit_bias"} <= set(ChatCompletionRequest.model_fields)


@pytest.mark.parametrize("name", PARAMETERS)
def test_fields_are_whole_numbers_where_the_wires_are(name: str) -> None:
    field = SamplingParams.DESCRIPTOR.fields_by_name[name]
    expected = float if field.cpp_type == field.CPPTYPE_FLOAT else int
    assert ChatCompletionRequest.model_fields[name].annotation == expected | None


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", PARAMETERS)
async def test_every_parameter_reaches_the_decoder(stage: Stage, name: str) -> None:
    # In every range, no checkpoint's preset, and exact in float32.
    response = await stage.post(messages=user(), **{name: 1})
    assert response.status_code == 200, response.text
    params = stage.decoder.starts[0].sampling_params
    assert params.HasField(name)
    assert getattr(params, name) == 1
