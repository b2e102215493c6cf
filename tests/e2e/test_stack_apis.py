"""Every API over the three real services: one answer, whoever asks, and Open Responses' cases.

The weights are random, so answers are compared, and what is called rightly is the grammar's doing.
"""

import base64
import json
import shlex
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openresponses_types as spec
import pytest
from openai import OpenAI

from tests.support.bundles import bundle
from tests.support.readme import blocks
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import DrawnImage

MODEL = "tiny-tied"
TEXT = "What do you see?"
TOKENS = 16
PNG = base64.b64encode(DrawnImage(width=96, height=64).encoded()).decode()
# A random model says each of these sooner or later, and so comes to an end.
STOP = list("aeinorst")
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"location": {"enum": ["San Francisco", "Berlin"]}},
        "required": ["location"],
    },
}
CURL = [block.text for block in blocks() if "curl http" in block.text]


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def base(served: ServedStack) -> str:
    return served.stack.http_url.removesuffix("/v1")


@pytest.fixture(scope="module")
def openai_client(served: ServedStack) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.stack.http_url, api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(openai_client: OpenAI) -> str:
    """What chat completions answer, greedily, about the image."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    content: Any = [image, {"type": "text", "text": TEXT}]
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=TOKENS,
    )
    text = answer.choices[0].message.content
    assert text
    return text


def test_responses_answer_as_chat_does(openai_client: OpenAI, expected: str) -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
    content: Any = [image, {"type": "input_text", "text": TEXT}]
    asked: dict[str, Any] = {
        "model": MODEL,
        "input": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_output_tokens": TOKENS,
    }
    assert openai_client.responses.create(**asked).output_text == expected
    with openai_client.responses.stream(**asked) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(pieces) == expected


def test_messages_answer_as_chat_does(base: str, expected: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": TEXT}]
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": TOKENS,
        "extra_body": {"temperature": 0},
    }
    with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as client:
        whole = client.messages.create(**asked)
        assert [block.text for block in whole.content if block.type == "text"] == [expected]
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == expected
        count = client.messages.count_tokens(model=MODEL, messages=asked["messages"])
    usage = whole.usage
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_ollama_answers_as_chat_does(base: str, expected: str) -> None:
    options = {"temperature": 0, "num_predict": TOKENS}
    question = {"role": "user", "content": TEXT, "images": [PNG]}
    with ollama.Client(host=base) as client:
        whole = client.chat(model=MODEL, messages=[question], options=options)
        assert whole.message.content == expected
        lines = client.generate(
            model=MODEL, prompt=TEXT, images=[PNG], options=options, stream=True
        )
        assert "".join(line.response or "" for line in lines) == expected


def asked(base: str, **body: Any) -> dict[str, Any]:
    """A response that is complete, and of the specification's form."""
    settings = {"model": MODEL, "stop": STOP, "max_output_tokens": 1024}
    answer = httpx.post(f"{base}/v1/responses", json={**settings, **body}, timeout=60.0)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    spec.ResponseResource.model_validate(found)
    assert found["status"] == "completed"
    assert found["output"]
    return found


def said(text: Any, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


FILE = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,VGl0bGU="}


@pytest.mark.parametrize(
    "items",
    [
        [said("Say hello in exactly 3 words.")],
        [said("You are a pirate.", "system"), said("Say hello.")],
        [said([{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}])],
        [said([{"type": "input_text", "text": "Read the file."}, FILE])],
        [said("My name is Alice."), said("Hello Alice!", "assistant"), said("What is my name?")],
    ],
    ids=["basic", "system", "image", "file", "turns"],
)
def test_an_input_of_open_responses_is_answered(base: str, items: Any) -> None:
    asked(base, input=items)


def test_a_conversation_of_open_responses_goes_on(base: str) -> None:
    first = asked(base, input="Remember this word: papaya.")
    assert asked(base, input="Which word?", previous_response_id=first["id"])


def test_a_call_of_open_responses_goes_and_its_output_comes_back(base: str) -> None:
    choice = {"type": "function", "name": "get_weather"}
    first = asked(
        base,
        input="How warm is it?",
        tools=[TOOL],
        tool_choice=choice,
        parallel_tool_calls=False,
        stop=None,
    )
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    assert json.loads(call["arguments"])["location"] in ("San Francisco", "Berlin")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "64 degrees"}
    asked(base, input=[output], previous_response_id=first["id"])


def test_the_readmes_requests_are_answered(base: str) -> None:
    """As curl sends them, which a small machine may not have."""
    (block,) = CURL
    for command in block.replace("\\\n", " ").strip().splitlines():
        program, url, _, header, _, body = shlex.split(command)
        assert program == "curl"
        name, _, value = header.partition(": ")
        url = url.replace("http://127.0.0.1:8000", base)
        answer = httpx.post(url, content=body, headers={name: value}, timeout=60.0)
        assert answer.status_code == 200, answer.text
        assert "usage" in answer.json() or answer.json()["eval_count"]
