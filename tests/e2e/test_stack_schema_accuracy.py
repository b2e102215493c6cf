"""A schema costs no right answer: the demonstration model through the three real services.

Where the model is free in what the grammar leaves open (blanks between the tokens of JSON, say),
it wanders off from what it was trained on and answers wrongly. So its answers in a schema are
compared with those that it gives freely, at temperature 0.
"""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from openai import OpenAI

from tests.demo_model.evaluation import is_right
from tests.demo_model.held_out import question
from tests.demo_model.served import data_url
from tests.support.bundles import demo_bundle
from tests.support.plain_pictures import COLORS, SHAPES, Mark, scatter
from tests.support.stack import Stacks

IMAGES = 16  # of one coloured shape
BOXES = 12  # questions that the model answers in JSON of itself
AT_ONCE = 4
NAMES = [f"{color} {shape}" for color in COLORS for shape in SHAPES]


class Asked(NamedTuple):
    """An image with a question about it."""

    url: str
    question: str


class Said(NamedTuple):
    """What the model answered, and in how many tokens."""

    text: str
    tokens: int


def form(properties: dict[str, Any]) -> dict[str, Any]:
    """The request's field for an object of these properties."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


LABEL = form({"label": {"enum": NAMES}})
PAIR = form({"shape": {"enum": [*SHAPES]}, "color": {"enum": [*COLORS]}})
PAIR_REGEX = f'\\{{"shape": "({"|".join(SHAPES)})", "color": "({"|".join(COLORS)})"\\}}'
BOX = form(
    {
        "bbox_2d": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 1000},
            "minItems": 4,
            "maxItems": 4,
        },
        "label": {"type": "string"},
    }
)


@pytest.fixture(scope="module")
def client(stacks: Stacks) -> Iterator[OpenAI]:
    url = stacks.get(demo_bundle("int4"), ray=False).stack.http_url
    with OpenAI(base_url=url, api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def shapes() -> list[tuple[Asked, Mark]]:
    """Images of one shape with what is on them."""
    rng = random.Random("one coloured shape")
    drawn = [scatter(rng, 1) for _ in range(IMAGES)]
    return [
        (Asked(data_url(canvas.finished()), "What is in the picture?"), marks[0])
        for canvas, marks in drawn
    ]


@pytest.fixture(scope="module")
def boxes() -> list[tuple[Asked, str]]:
    """Questions where something is, with the right answers."""
    found = [question("locate", number) for number in range(BOXES)]
    return [(Asked(data_url(q.pictures[0]), q.turns[0].question), q.turns[0].answer) for q in found]


def answers(client: OpenAI, asked: Sequence[Asked], **options: Any) -> list[Said]:
    """An answer to each question."""
    model = client.models.list().data[0].id

    def answer(one: Asked) -> Said:
        image = {"type": "image_url", "image_url": {"url": one.url}}
        messages: Any = [
            {"role": "user", "content": [image, {"type": "text", "text": one.question}]}
        ]
        given = client.chat.completions.create(
            model=model, messages=messages, temperature=0, max_tokens=200, **options
        )
        assert given.usage is not None
        assert given.choices[0].finish_reason == "stop"
        return Said(given.choices[0].message.content or "", given.usage.completion_tokens)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(answer, asked))


def token_count(said: Sequence[Said]) -> int:
    return sum(one.tokens for one in said)


def test_a_schema_costs_no_right_answer_and_few_tokens(
    client: OpenAI, shapes: list[tuple[Asked, Mark]]
) -> None:
    asked = [one for one, _ in shapes]
    free, held = answers(client, asked), answers(client, asked, **LABEL)
    names = [mark.name for _, mark in shapes]
    assert [name in said.text for name, said in zip(names, free, strict=True)] == [True] * IMAGES
    assert [json.loads(said.text)["label"] for said in held] == names
    assert token_count(held) <= 1.25 * token_count(free)


def test_a_schema_of_several_fields_answers_as_the_same_json_by_a_regular_expression(
    client: OpenAI, shapes: list[tuple[Asked, Mark]]
) -> None:
    asked = [one for one, _ in shapes]
    pattern = {"structured_outputs": {"regex": PAIR_REGEX}}
    assert answers(client, asked, **PAIR) == answers(client, asked, extra_body=pattern)


@pytest.mark.parametrize("options", [BOX, {"response_format": {"type": "json_object"}}])
def test_json_that_the_model_says_of_itself_is_left_as_it_is(
    client: OpenAI, boxes: list[tuple[Asked, str]], options: dict[str, Any]
) -> None:
    asked = [one for one, _ in boxes]
    free = answers(client, asked)
    assert all(is_right(right, said.text) for (_, right), said in zip(boxes, free, strict=True))
    assert answers(client, asked, **options) == free


@pytest.mark.parametrize("outputs", [{"disable_any_whitespace": True}, {"whitespace_pattern": ""}])
def test_who_wants_other_white_space_gets_it(
    client: OpenAI, shapes: list[tuple[Asked, Mark]], outputs: dict[str, Any]
) -> None:
    asked = [one for one, _ in shapes[:3]]
    for said in answers(client, asked, **PAIR, extra_body={"structured_outputs": outputs}):
        assert said.text == json.dumps(json.loads(said.text), separators=(",", ":"))
