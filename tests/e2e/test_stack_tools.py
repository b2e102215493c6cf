"""Tools through the three real services.

The weights are random, so whatever is called rightly is the grammar's doing.
"""

from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle
from tests.support.stack import ServedStack, Stacks

MODEL = "tiny-tied"
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather like?"}]


class Forecast(BaseModel):
    """Tells the weather."""

    city: Literal["Berlin", "Tokyo", "<tool_call>"]
    days: Literal[1, 2, 3]


class Clock(BaseModel):
    """Tells the time."""

    zone: Literal["CET", "JST"]


TOOLS: list[Any] = [pydantic_function_tool(Forecast), pydantic_function_tool(Clock)]
NAMED: Any = {"type": "function", "function": {"name": "Clock"}}


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.stack.http_url, api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, **options: Any) -> Any:
    settings: dict[str, Any] = {"messages": QUESTION, "tools": TOOLS, "max_tokens": 400}
    settings |= {"temperature": 1.5, **options}
    return client.chat.completions.create(model=MODEL, **settings)


def test_required_calls_fit_their_tools(client: OpenAI) -> None:
    answer = ask(client, tool_choice="required", parallel_tool_calls=False, n=4, seed=5)
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        tool = Forecast if call.function.name == "Forecast" else Clock
        tool.model_validate_json(call.function.arguments)


def test_a_named_tool_is_called(client: OpenAI) -> None:
    answer = ask(client, tool_choice=NAMED, parallel_tool_calls=False, temperature=0.0)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "Clock"
    Clock.model_validate_json(call.function.arguments)


def test_the_clients_parse_helper_takes_a_call(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=QUESTION,
        tools=TOOLS,
        tool_choice=NAMED,
        parallel_tool_calls=False,
        max_tokens=400,
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None and len(calls) == 1
    call = calls[0]
    assert isinstance(call.function.parsed_arguments, Clock)


def test_a_streamed_call_is_the_whole_call_in_pieces(client: OpenAI) -> None:
    options = {"tool_choice": NAMED, "parallel_tool_calls": False, "temperature": 0.0}
    whole = ask(client, **options).choices[0].message.tool_calls[0].function.arguments
    deltas = [
        call
        for chunk in ask(client, stream=True, **options)
        if chunk.choices
        for call in chunk.choices[0].delta.tool_calls or []
    ]
    assert deltas[0].id and deltas[0].function.name == "Clock"
    assert not any(delta.id for delta in deltas[1:])
    assert "".join(delta.function.arguments for delta in deltas) == whole
    assert len(deltas) > 2


def test_a_conversation_with_calls_and_results_goes_on(client: OpenAI) -> None:
    said = ask(client, tool_choice=NAMED, parallel_tool_calls=False).choices[0].message
    result = {
        "role": "tool",
        "tool_call_id": said.tool_calls[0].id,
        "content": [{"type": "text", "text": "Noon."}],
    }
    messages = [*QUESTION, said.model_dump(), result]
    answer = ask(client, messages=messages, tool_choice="required")
    assert answer.choices[0].message.tool_calls


def test_free_answers_may_be_said_beside_tools(client: OpenAI) -> None:
    answer = ask(client, temperature=0.0, max_tokens=8)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_a_schema_that_cannot_be_held_is_refused_only_where_it_must_be(client: OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"enum": ["x"]}, "b": {"type": "string", "pattern": "^(?!c)d"}},
        "required": ["a"],
        "not": {"required": ["c"]},
    }
    for strict in (True, False):
        function = {"name": "f", "parameters": parameters, "strict": strict}
        options: dict[str, Any] = {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "required",
            "max_tokens": 60,
        }
        if strict:
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client, **options)
            assert (caught.value.code, caught.value.param) == ("invalid_schema", "tools")
        else:
            call = ask(client, **options).choices[0].message.tool_calls[0]
            assert call.function.arguments.startswith('{"a": "x"')


def test_no_answer_ends_before_its_least_number_of_tokens(client: OpenAI) -> None:
    eos = Bundle.open(bundle("tied")).manifest.special_tokens.eos[0]
    for least in (1, 40):
        answer = client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=60,
            logit_bias={str(eos): 100},
            extra_body={"min_tokens": least},
        )
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None and answer.usage.completion_tokens == least + 1
