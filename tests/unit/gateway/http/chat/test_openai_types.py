"""Every field of the installed openai package's request: held, or refused by its name."""

import typing
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.chat_completion_content_part_image_param import ImageURL
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from tests.unit.gateway.stage import Stage, image_part, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HELD: dict[str, Any] = {
    "messages": user(),
    "model": "test",
    "stream": False,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0,
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "stop": ["x"],
    "n": 2,
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "json_object"},
    "modalities": ["text"],
    "user": "me",
    "store": False,
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
}
REFUSED: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "moderation": {"model": "m"},
    "verbosity": "low",
    "web_search_options": {},
}
NEEDS = {"top_logprobs": {"logprobs": True}, "stream_options": {"stream": True}}


def fields(typed: Any) -> list[str]:
    """Names of a TypedDict's fields."""
    return sorted(typing.get_type_hints(typed))


async def test_the_tables_hold_every_field_of_the_installed_client() -> None:
    assert sorted({**HELD, **REFUSED}) == fields(CompletionCreateParamsStreaming)


@pytest.mark.parametrize("name", fields(CompletionCreateParamsStreaming))
async def test_null_is_as_good_as_nothing(stage: Stage, name: str) -> None:
    if name != "messages":
        response = await stage.post(**{"messages": user(), name: None})
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", HELD)
async def test_a_field_that_is_held_is_accepted(stage: Stage, name: str) -> None:
    body = {"messages": user(), name: HELD[name], **NEEDS.get(name, {})}
    response = await stage.post(**body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", REFUSED)
async def test_any_other_field_is_refused_by_its_name(stage: Stage, name: str) -> None:
    response = await stage.post(**{"messages": user(), name: REFUSED[name]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name
    assert stage.decoder.starts == []


@pytest.mark.parametrize("message", typing.get_args(ChatCompletionMessageParam))
async def test_null_fields_of_a_message_are_as_good_as_none(stage: Stage, message: Any) -> None:
    (role,) = typing.get_args(typing.get_type_hints(message)["role"])
    if role == "function":  # deprecated before this server began
        return
    nulls = dict.fromkeys(fields(message))
    turn = {**nulls, "role": role, "content": "Hello?"}
    # A system message has to be the first, and a template may want a user's.
    turns = [turn, *user()] if role in ("system", "developer") else [*user(), turn]
    assert (await stage.post(messages=turns)).status_code == 200


@pytest.mark.parametrize(
    "detail", [*typing.get_args(typing.get_type_hints(ImageURL)["detail"]), None]
)
async def test_every_detail_of_an_image_is_accepted(stage: Stage, detail: str | None) -> None:
    part = image_part()
    part["image_url"]["detail"] = detail
    assert (await stage.post(messages=[{"role": "user", "content": [part]}])).status_code == 200


@pytest.mark.parametrize(
    "refused",
    [
        {"content": [{"type": "refusal", "refusal": "I will not."}]},
        {"content": None, "refusal": "I will not."},
    ],
)
async def test_an_assistants_refusal_is_what_it_said(stage: Stage, refused: Any) -> None:
    said = {"role": "assistant", "content": "I will not."}
    for turn in (said, {"role": "assistant", **refused}):
        assert (await stage.post(messages=[*user(), turn, *user("Why?")])).status_code == 200
    first, second = stage.decoder.starts
    assert first.input_ids == second.input_ids


async def test_top_p_may_be_0_and_reaches_the_decoder(stage: Stage) -> None:
    assert (await stage.post(messages=user(), top_p=0)).status_code == 200
    assert stage.decoder.starts[0].sampling_params.HasField("top_p")
    assert stage.decoder.starts[0].sampling_params.top_p == 0


@pytest.mark.parametrize("field", [{"min_tokens": 0}, {"skip_special_tokens": True}])
async def test_what_is_so_anyway_may_be_said(stage: Stage, field: dict[str, Any]) -> None:
    assert (await stage.post(messages=user(), **field)).status_code == 200


async def test_a_null_of_a_client_yet_to_come_is_nothing(stage: Stage) -> None:
    message = {"role": "user", "content": "Hello?", "mood": None}
    assert (await stage.post(messages=[message], ability=None)).status_code == 200
    for body in ({"messages": [{**message, "mood": 1}]}, {"messages": user(), "ability": 1}):
        assert (await stage.post(**body)).status_code == 400
