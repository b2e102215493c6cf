"""At every depth of a request: a field is held or refused, never passed over in silence."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.http.chat import schemas
from tests.unit.gateway.stage import Stage, image_part, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Models that take fields nobody knows: echoes of earlier answers, which ask for nothing.
ECHOES = {schemas.ToolCall, schemas.FunctionCall}
# Fields without a type of their own, and who looks into them.
UNTYPED = {
    "messages.content": "gateway.http.chat.translate, below",
    "messages.annotations": "nobody: an echo of an earlier answer",
    "tools": "gateway.http.chat.translate; the template writes each tool whole",
    "tool_choice": "gateway.http.chat.translate",
    "prompt_cache_options": "nobody: the answer is the same",
    "prediction": "nobody: a guess that would make the same answer come sooner",
    "response_format.json_schema.schema": "the decoder, which holds all of it or refuses",
    "response_format.schema": "the decoder",
    "structured_outputs.json": "the decoder",
}


def walk(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field of a request with its path, as deep as the models go; and its type."""
    for name, field in model.model_fields.items():
        here = f"{path}{field.alias or name}"
        yield here, field.annotation
        for inner in models_in(field.annotation):
            yield from walk(inner, f"{here}.")


def models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in typing.get_args(annotation) for model in models_in(part)}


def is_untyped(annotation: Any) -> bool:
    return annotation is Any or any(is_untyped(part) for part in typing.get_args(annotation))


async def test_only_echoes_take_fields_that_nobody_knows() -> None:
    found: set[type[BaseModel]] = {schemas.ChatCompletionRequest}
    for _, annotation in walk(schemas.ChatCompletionRequest):
        found |= models_in(annotation)
    assert len(found) > 6
    assert {model for model in found if model.model_config["extra"] != "forbid"} == ECHOES


async def test_whatever_has_no_type_is_looked_into_by_somebody() -> None:
    fields = walk(schemas.ChatCompletionRequest)
    assert {path for path, annotation in fields if is_untyped(annotation)} == {*UNTYPED}


IMAGE = image_part()
URL = IMAGE["image_url"]
TEXT = {"type": "text", "text": "What is this?"}
SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_pixels": 1}, "max_pixels"),
        ({"messages": [user()[0] | {"max_pixels": 1}]}, "messages[0].max_pixels"),
        ({"stream": True, "stream_options": {"include_all": True}}, "stream_options.include_all"),
        ({"response_format": {"type": "text", "strict": True}}, "response_format.strict"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schemas": SCHEMA}}},
            "response_format.json_schema.schemas",
        ),
        ({"structured_outputs": {"regex": "a", "lenient": True}}, "structured_outputs.lenient"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_unknown_field_is_refused_by_its_path(
    stage: Stage, body: dict[str, Any], param: str
) -> None:
    await assert_refused(stage, {"messages": user()} | body, param)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (TEXT | {"max_pixels": 50_176}, "max_pixels"),
        (TEXT | {"min_pixels": 50_176}, "min_pixels"),
        (IMAGE | {"resized_height": 280, "resized_width": 420}, "resized_height"),
        (IMAGE | {"text": "What is this?"}, "text"),
        ({"type": "image_url", "image_url": URL | {"max_pixels": 1}}, "image_url.max_pixels"),
        (TEXT | {"image_url": URL}, "image_url"),
        (TEXT | {"language": "en"}, "language"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_unknown_field_of_a_part_is_refused_by_its_path(
    stage: Stage, part: dict[str, Any], param: str
) -> None:
    messages = [{"role": "user", "content": [TEXT, part]}]
    await assert_refused(stage, {"messages": messages}, f"messages[0].content[1].{param}")


async def assert_refused(stage: Stage, body: dict[str, Any], param: str) -> None:
    response = await stage.post(**body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert stage.decoder.starts == []


@pytest.mark.parametrize(
    "part",
    [
        TEXT | {"cache_control": {"type": "ephemeral"}, "annotations": [], "id": "x", "index": 0},
        TEXT | {"prompt_cache_breakpoint": {"mode": "explicit"}, "max_pixels": None},
        IMAGE | {"max_pixels": None},
        {"type": "image_url", "image_url": URL | {"detail": "auto", "format": "image/png"}},
    ],
    ids=lambda part: str([*part]),
)
async def test_what_cannot_change_an_answer_may_come_along(
    stage: Stage, part: dict[str, Any]
) -> None:
    stage.will_say("yes")
    response = await stage.post(messages=[{"role": "user", "content": [TEXT, part]}])
    assert response.status_code == 200, response.text
