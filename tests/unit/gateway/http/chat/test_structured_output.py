"""What an answer must look like, through both doors."""

import json
from typing import Any

import grpc
import openai
import pytest
from pydantic import BaseModel

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import InvalidRequest, Overloaded, Reason, Unsupported, from_rpc_error
from tests.unit.gateway.stage import Stage, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
SCHEMA_FIELD = "response_format.json_schema.schema"
BROKEN = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}


class Answer(BaseModel):
    colour: str
    count: int


def json_schema(schema: Any = None, **rest: Any) -> dict[str, Any]:
    wanted = {"name": "x", "schema": SCHEMA if schema is None else schema, **rest}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


@pytest.mark.parametrize(
    ("body", "constraint"),
    [
        (json_schema(), decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA))),
        (json_schema(strict=True), decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA))),
        (json_schema({}), decoder_pb2.Constraint(json_schema="{}")),
        (
            {"response_format": {"type": "json_object"}},
            decoder_pb2.Constraint(json_object=True),
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA)),
        ),
        (
            {"response_format": {"type": "json_object", "schema": {}, "json_schema": None}},
            decoder_pb2.Constraint(json_object=True),
        ),
        (
            {"structured_outputs": {"json": SCHEMA}},
            decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA)),
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": r"\s?"}},
            decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA), whitespace_pattern=r"\s?"),
        ),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            decoder_pb2.Constraint(json_object=True, disable_any_whitespace=True),
        ),
        (
            {"structured_outputs": {"regex": "a", "disable_any_whitespace": False}},
            decoder_pb2.Constraint(regex="a"),
        ),
        (
            json_schema() | {"structured_outputs": {"disable_any_whitespace": True}},
            decoder_pb2.Constraint(json_schema=json.dumps(SCHEMA), disable_any_whitespace=True),
        ),
        (
            {"response_format": {"type": "json_object"}}
            | {"structured_outputs": {"whitespace_pattern": ""}},
            decoder_pb2.Constraint(json_object=True, whitespace_pattern=""),
        ),
        (
            {"structured_outputs": {"json": '{"type": "null"}'}},
            decoder_pb2.Constraint(json_schema='{"type": "null"}'),
        ),
        ({"structured_outputs": {"regex": "[0-9]+"}}, decoder_pb2.Constraint(regex="[0-9]+")),
        (
            {"structured_outputs": {"choice": ["a", "b"]}},
            decoder_pb2.Constraint(choice=decoder_pb2.Choice(texts=["a", "b"])),
        ),
        (
            {"structured_outputs": {"grammar": 'start: "a"'}},
            decoder_pb2.Constraint(lark='start: "a"'),
        ),
        (
            {"structured_outputs": {"json_object": True}, "response_format": {"type": "text"}},
            decoder_pb2.Constraint(json_object=True),
        ),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_each_form_reaches_the_decoder(
    stage: Stage, body: dict[str, Any], constraint: decoder_pb2.Constraint
) -> None:
    response = await stage.post(messages=user(), n=2, **body)
    assert response.status_code == 200, response.text
    assert [start.constraint for start in stage.decoder.starts] == [constraint, constraint]


@pytest.mark.parametrize("body", [{}, {"response_format": {"type": "text"}}], ids=str)
async def test_without_a_form_anything_goes(stage: Stage, body: dict[str, Any]) -> None:
    assert (await stage.post(messages=user(), **body)).status_code == 200
    assert not stage.decoder.starts[0].HasField("constraint")


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        (
            {"response_format": {"type": "json_schema"}},
            Reason.INVALID_SCHEMA,
            SCHEMA_FIELD,
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            Reason.INVALID_SCHEMA,
            SCHEMA_FIELD,
        ),
        (json_schema([]), Reason.INVALID_SCHEMA, SCHEMA_FIELD),
        (json_schema({"title": "x" * 2**20}), Reason.INVALID_SCHEMA, SCHEMA_FIELD),
        (
            {"structured_outputs": {}},
            Reason.INVALID_PARAMETER,
            "structured_outputs",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            Reason.INVALID_PARAMETER,
            "structured_outputs",
        ),
        (
            {"structured_outputs": {"json_object": False}},
            Reason.INVALID_SCHEMA,
            "structured_outputs.json_object",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            Reason.INVALID_PARAMETER,
            "structured_outputs",
        ),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            Reason.INVALID_PARAMETER,
            "structured_outputs.structural_tag",
        ),
        (
            {"structured_outputs": {"whitespace_pattern": " "}},
            Reason.INVALID_PARAMETER,
            "structured_outputs",
        ),
        (
            {"structured_outputs": {"regex": "a", "whitespace_pattern": " "}},
            Reason.INVALID_PARAMETER,
            "structured_outputs.whitespace_pattern",
        ),
        (
            json_schema() | {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "}},
            Reason.INVALID_PARAMETER,
            "structured_outputs",
        ),
        (
            {
                "structured_outputs": {
                    "json": SCHEMA,
                    "whitespace_pattern": " ",
                    "disable_any_whitespace": True,
                }
            },
            Reason.INVALID_PARAMETER,
            "structured_outputs.disable_any_whitespace",
        ),
        (
            {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " " * 2**20}},
            Reason.INVALID_SCHEMA,
            "structured_outputs.json",
        ),
        (
            {"response_format": {"type": "json_object", "schema": {"title": "x" * 2**20}}},
            Reason.INVALID_SCHEMA,
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "text", "schema": SCHEMA}},
            Reason.INVALID_PARAMETER,
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}},
            Reason.INVALID_PARAMETER,
            "response_format.json_schema",
        ),
        (json_schema(name=3), Reason.INVALID_PARAMETER, "response_format.json_schema.name"),
        ({"guided_regex": "a"}, Reason.INVALID_PARAMETER, "guided_regex"),
        (
            {"response_format": {"type": "json_object"}, "ignore_eos": True},
            Reason.INVALID_PARAMETER,
            "ignore_eos",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_forms_that_make_no_sense_are_refused_by_name(
    stage: Stage, body: dict[str, Any], reason: Reason, param: str
) -> None:
    response = await stage.post(messages=user(), **body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (reason.value.lower(), param)
    assert stage.decoder.starts == []


async def test_a_body_nested_without_end_is_refused(stage: Stage) -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    response = await stage.post(messages=user(), **json_schema(schema))
    assert response.status_code == 400


async def test_what_the_decoder_says_of_a_schema_names_the_clients_field(stage: Stage) -> None:
    stage.decoder.failure = InvalidRequest(
        "constraint.json_schema cannot be compiled: Invalid type: nonsense",
        reason=Reason.INVALID_SCHEMA,
        param="constraint.json_schema",
    )
    response = await stage.post(messages=user(), response_format=BROKEN)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_schema", SCHEMA_FIELD)
    assert error["message"] == f"{SCHEMA_FIELD} cannot be compiled: Invalid type: nonsense"


async def test_a_decoder_without_structured_output_says_so(stage: Stage) -> None:
    stage.decoder.failure = Unsupported("constraint is not supported", param="constraint")
    response = await stage.post(messages=user(), response_format=BROKEN)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == SCHEMA_FIELD


async def test_a_decoder_with_too_many_schemas_asks_to_wait(stage: Stage) -> None:
    stage.decoder.failure = Overloaded("64 grammars wait to be compiled", retry_after_s=2.0)
    response = await stage.post(messages=user(), response_format=BROKEN)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"


async def test_a_grammar_that_fails_midway_ends_the_stream_with_an_error(stage: Stage) -> None:
    tokens = stage.will_say('{"a": 1')
    failure = InvalidRequest(
        "constraint.json_schema leads nowhere",
        reason=Reason.INVALID_SCHEMA,
        param="constraint.json_schema",
    )
    stage.decoder.failure_after = (len(tokens), failure)
    response = await stage.post(messages=user(), stream=True, response_format=BROKEN)
    assert f"{SCHEMA_FIELD} leads nowhere" in response.text
    assert "[DONE]" not in response.text


async def test_openais_client_parses_into_a_model(stage: Stage) -> None:
    stage.will_say('{"colour": "red", "count": 3}')
    answer = await stage.openai.chat.completions.parse(
        model="test", messages=user(), response_format=Answer
    )
    assert answer.choices[0].message.parsed == Answer(colour="red", count=3)
    sent = json.loads(stage.decoder.starts[0].constraint.json_schema)
    assert list(sent["properties"]) == ["colour", "count"]
    assert sent["additionalProperties"] is False


async def test_openais_client_streams_into_a_model(stage: Stage) -> None:
    stage.will_say('{"colour": "red", "count": 3}')
    async with stage.openai.chat.completions.stream(
        model="test", messages=user(), response_format=Answer
    ) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == Answer(colour="red", count=3)


async def test_half_an_answer_is_not_parsed(stage: Stage) -> None:
    stage.will_say('{"colour": "re')
    stage.decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
    with pytest.raises(openai.LengthFinishReasonError):
        await stage.openai.chat.completions.parse(
            model="test", messages=user(), response_format=Answer
        )


def chat_request(constraint: decoder_pb2.Constraint) -> gateway_pb2.ChatRequest:
    part = gateway_pb2.ContentPart(text="Hello?")
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
    return gateway_pb2.ChatRequest(messages=[message], constraint=constraint)


@pytest.mark.parametrize(
    "constraint",
    [
        decoder_pb2.Constraint(json_schema="{}"),
        decoder_pb2.Constraint(json_object=True),
        decoder_pb2.Constraint(json_schema="{}", whitespace_pattern=""),
        decoder_pb2.Constraint(json_object=True, disable_any_whitespace=True),
        decoder_pb2.Constraint(regex="a"),
        decoder_pb2.Constraint(choice=decoder_pb2.Choice(texts=["a"])),
        decoder_pb2.Constraint(lark='start: "a"'),
    ],
    ids=str,
)
async def test_the_grpc_door_passes_constraints_on(
    stage: Stage, constraint: decoder_pb2.Constraint
) -> None:
    stage.will_say("a")
    assert [chunk async for chunk in stage.grpc.Complete(chat_request(constraint))]
    assert stage.decoder.starts[0].constraint == constraint


@pytest.mark.parametrize(
    ("constraint", "param"),
    [
        (decoder_pb2.Constraint(), "constraint"),
        (decoder_pb2.Constraint(json_object=False), "constraint.json_object"),
        (decoder_pb2.Constraint(regex="a" * 2**20), "constraint.regex"),
        (
            decoder_pb2.Constraint(regex="a", whitespace_pattern=" "),
            "constraint.whitespace_pattern",
        ),
        (
            decoder_pb2.Constraint(json_schema="{}", disable_any_whitespace=False),
            "constraint.disable_any_whitespace",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_the_grpc_door_refuses_empty_and_huge_constraints(
    stage: Stage, constraint: decoder_pb2.Constraint, param: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [chunk async for chunk in stage.grpc.Complete(chat_request(constraint))]
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert error.param == param
