"""What prompts cost, without a tier: POST /tokenize and /detokenize."""

from typing import Any

import pytest

from tests.unit.gateway.stage import Stage, about_images, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL = {"type": "function", "function": {"name": "look"}}


async def tokenize(stage: Stage, **body: Any) -> Any:
    return await stage.http.post("/tokenize", json=body)


async def test_a_text_and_its_tokens(stage: Stage) -> None:
    body = (await tokenize(stage, prompt="Hi <|im_end|>", return_token_strs=True)).json()
    assert body["tokens"] == stage.tokenizer.encode_prompt("Hi <|im_end|>", "\ufdd0").ids
    assert body["count"] == len(body["tokens"])
    assert body["max_model_len"] == stage.gateway.context_length()
    assert "".join(body["token_strs"]) == "Hi <|im_end|>"
    assert (await tokenize(stage, prompt="Hi")).json()["token_strs"] is None


async def test_a_conversation_costs_what_its_answer_is_charged(stage: Stage) -> None:
    messages = about_images((64, 64), (320, 256))
    counted = (await tokenize(stage, messages=messages, tools=[TOOL])).json()
    assert stage.vision.requests == [] and stage.decoder.starts == []
    answered = (await stage.post(messages=messages, tools=[TOOL])).json()
    assert counted["count"] == answered["usage"]["prompt_tokens"]
    assert counted["tokens"] == list(stage.decoder.starts[0].input_ids)


async def test_what_was_tokenized_is_told_again(stage: Stage) -> None:
    for text in ("Größe 日本 <|im_start|>", "", "\n\n a"):
        ids = stage.tokenizer.encode_prompt(text, "\ufdd0").ids
        response = await stage.http.post("/detokenize", json={"tokens": ids})
        assert response.json() == {"prompt": text}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": user()}, "prompt"),
        ({"messages": user(), "add_generation_prompt": False}, "add_generation_prompt"),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            "messages[0].content[0]",
        ),
        ({"prompt": "a", "model": "other"}, "model"),
        ({"prompt": "a", "temperature": 1}, "temperature"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_cannot_be_counted_is_refused(
    stage: Stage, body: dict[str, Any], param: str
) -> None:
    response = await tokenize(stage, **body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("tokens", [[-1], [10**6], ["a"], None])
async def test_ids_that_there_are_not_are_refused(stage: Stage, tokens: Any) -> None:
    response = await stage.http.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 400
    assert response.json()["error"]["param"] in ("tokens", "tokens[0]")


async def test_the_release_is_told(stage: Stage) -> None:
    assert set((await stage.http.get("/version")).json()) == {"version"}
