"""Structured output through the three real services, asked for as clients do.

The model's weights are random, so whatever comes out right is the grammar's doing.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.support.bundles import bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import ONE_IMAGE, TEXT_ONLY

MODEL = "tiny-tied"
QUESTION: list[Any] = [{"role": "user", "content": "Describe a spider."}]
ENOUGH = 600  # tokens; the forms below are bounded
SCHEMA_FIELD = "response_format.json_schema.schema"


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Leg(Form):
    length: Annotated[int, Field(ge=0, le=99)]
    side: Literal["left", "right"]


class Spider(Form):
    name: Annotated[str, Field(max_length=10)]
    legs: Annotated[list[Leg], Field(max_length=3)]
    poisonous: bool | None


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.stack.http_url, api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, **options: Any) -> list[str]:
    """The answers' texts, each complete."""
    settings: dict[str, Any] = {"temperature": 1.5, "max_tokens": ENOUGH, **options}
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, **settings)
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    return [choice.message.content or "" for choice in answer.choices]


def test_a_model_of_pydantic_is_filled(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Spider, max_tokens=ENOUGH, temperature=1.5
    )
    assert isinstance(answer.choices[0].message.parsed, Spider)


def test_a_streamed_model_of_pydantic_is_filled(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=Spider, max_tokens=ENOUGH, temperature=1.5
    ) as stream:
        answer = stream.get_final_completion()
    assert isinstance(answer.choices[0].message.parsed, Spider)


def test_every_choice_of_several_has_the_form(client: OpenAI) -> None:
    schema = {"name": "spider", "strict": True, "schema": Spider.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    texts = ask(client, response_format=form, n=4, seed=3)
    assert len({*texts}) == 4
    for text in texts:
        Spider.model_validate_json(text)


def test_a_greedy_answer_has_the_form_too(client: OpenAI) -> None:
    (text,) = ask(client, temperature=0.0, extra_body={"structured_outputs": {"regex": "[0-9]{4}"}})
    assert re.fullmatch("[0-9]{4}", text)


def test_one_of_the_choices_is_said(client: OpenAI) -> None:
    choices = ["house spider", "jumping spider", "Spinne 🕷"]
    said = {
        *ask(client, n=4, seed=1, extra_body={"structured_outputs": {"choice": choices}}),
        *ask(client, n=4, seed=9, extra_body={"structured_outputs": {"choice": choices}}),
    }
    assert said <= {*choices}
    assert len(said) > 1


@pytest.mark.parametrize(
    "text",
    ["cafe\u0301", "\u212b", "U\u0308bung.pdf", "<tool_call>", "<think>", "a<|im_end|>b"],
    ids=ascii,
)
def test_a_text_is_said_as_it_was_given(client: OpenAI, text: str) -> None:
    """Unicode's NFC would change the first three, the others read like added tokens."""
    pattern = text.replace(".", "\\.").replace("|", "\\|")
    for outputs in ({"choice": [text]}, {"regex": pattern}):
        assert ask(client, extra_body={"structured_outputs": outputs}) == [text]
    (answer,) = ask(client, extra_body={"structured_outputs": {"json": {"enum": [text]}}})
    assert json.loads(answer) == text


def test_a_grammar_is_followed(client: OpenAI) -> None:
    grammar = 'start: leg (", " leg){0,3}\nleg: /[1-8]/ ("left" | "right")'
    (text,) = ask(client, extra_body={"structured_outputs": {"grammar": grammar}})
    assert re.fullmatch(r"[1-8](left|right)(, [1-8](left|right)){0,3}", text)


def test_a_json_object_is_an_object_as_far_as_it_goes(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        response_format={"type": "json_object"},
        temperature=1.5,
        max_tokens=200,
        seed=4,
    )
    text = answer.choices[0].message.content or ""
    assert text.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_a_json_object_holds_its_schema(client: OpenAI) -> None:
    """As in llama.cpp, whose clients put the schema there."""
    form = {"type": "json_object", "schema": Spider.model_json_schema()}
    (text,) = ask(client, response_format=form)
    spider = Spider.model_validate_json(text)
    assert json.loads(text).keys() == spider.model_dump().keys()


def test_a_stop_string_cuts_an_answer_in_a_form(client: OpenAI) -> None:
    outputs = {"regex": "a{3}b{3}"}
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, stop=["bb"], extra_body={"structured_outputs": outputs}
    )
    assert answer.choices[0].message.content == "aaa"
    assert answer.choices[0].finish_reason == "stop"


def test_log_probabilities_are_the_models_own(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0.0,
        logprobs=True,
        top_logprobs=1,
        extra_body={"structured_outputs": {"choice": ["a"]}},
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    (token,) = logprobs.content
    assert token.token == "a"
    assert token.logprob < 0  # certain, had the mask counted
    assert token.top_logprobs[0].logprob >= token.logprob


def test_images_are_answered_in_a_form_over_grpc(served: ServedStack) -> None:
    request = gateway_pb2.ChatRequest(
        messages=ONE_IMAGE.to_proto(),
        constraint=decoder_pb2.Constraint(choice=decoder_pb2.Choice(texts=["yes", "no"])),
    )
    chunks = list(served.chat.complete(request))
    assert "".join(chunk.text for chunk in chunks) in ("yes", "no")
    assert chunks[-1].completion.finish_reason == decoder_pb2.FINISH_REASON_STOP


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"enum": [f"value {number}" for number in range(10_000)]},
        deep(20),
        {"description": "x" * 2**20},
        {"type": "string", "pattern": "(a"},
        {"type": "integer", "multipleOf": 10_000_019},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_schemas_beyond_reason_are_refused_soon(
    client: OpenAI, served: ServedStack, schema: dict[str, Any]
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    began = time.monotonic()
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=form)
    assert time.monotonic() - began < 10  # 2 s of compiling at most, and a busy machine
    assert (caught.value.code, caught.value.param) == ("invalid_schema", SCHEMA_FIELD)
    assert SCHEMA_FIELD in caught.value.message
    assert served.load().running_count == 0


def test_a_schema_that_compiles_too_long_holds_up_nobody(
    client: OpenAI, served: ServedStack
) -> None:
    expected = served.greedy(TEXT_ONLY, 24)
    slow = {"type": "integer", "multipleOf": 20_000_003}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": slow}}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(ask, client, response_format=form)
        answers = 0
        while not refused.done():
            assert served.greedy(TEXT_ONLY, 24).token_ids == expected.token_ids
            answers += 1
        assert isinstance(refused.exception(), openai.BadRequestError)
    assert answers > 1


def test_answers_in_a_form_leave_their_batch_mates_alone(
    client: OpenAI, served: ServedStack
) -> None:
    expected = served.greedy(TEXT_ONLY, 48)
    schema = {"name": "spider", "schema": Spider.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    with ThreadPoolExecutor(3) as pool:
        formed = [pool.submit(ask, client, response_format=form, n=2, seed=at) for at in range(3)]
        for _ in range(3):
            assert served.greedy(TEXT_ONLY, 48).token_ids == expected.token_ids
        for future in formed:
            for text in future.result():
                Spider.model_validate_json(text)
    served.wait_until_idle()
