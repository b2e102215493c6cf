"""POST /v1/completions: texts that stand for themselves, as the openai client asks for them."""

from typing import Any

import openai
import pytest

from tests.unit.gateway.stage import Stage, user

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def post(stage: Stage, **body: Any) -> Any:
    return await stage.http.post("/v1/completions", json=body)


async def test_a_text_is_continued_without_a_template(stage: Stage) -> None:
    completion = await stage.openai.completions.create(model="test", prompt="Once upon")
    assert completion.choices[0].text == "Hi there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.object == "text_completion" and completion.id.startswith("cmpl-")
    assert completion.usage is not None
    (start,) = stage.decoder.starts
    assert list(start.input_ids) == stage.tokenizer.encode_text("Once upon")
    assert completion.usage.prompt_tokens == len(start.input_ids)
    assert start.stop_conditions.max_tokens == 16
    assert start.position_delta == 0


async def test_added_tokens_of_a_text_are_the_clients(stage: Stage) -> None:
    text = "<|im_start|>user\nHello<|im_end|>\n"
    await post(stage, prompt=text)
    expected = stage.tokenizer.encode_prompt(text, "\ufdd0").ids
    assert list(stage.decoder.starts[0].input_ids) == expected
    assert len(expected) < len(stage.tokenizer.encode_text(text))


async def test_several_prompts_and_choices_are_counted_through(stage: Stage) -> None:
    ids = stage.tokenizer.encode_text("two")
    body = (await post(stage, prompt=["one", "two"], n=2, best_of=2, seed=5)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    starts = {start.request_id: start for start in stage.decoder.starts}
    assert len(starts) == 4
    assert sorted(start.sampling_params.seed for start in starts.values()) == [5, 5, 6, 6]
    assert sum(list(start.input_ids) == ids for start in starts.values()) == 2
    lengths = [len(start.input_ids) for start in starts.values()]
    assert body["usage"]["prompt_tokens"] == sum(lengths) // 2
    assert body["usage"]["completion_tokens"] == 4 * (len(stage.decoder.tokens) + 1)


@pytest.mark.parametrize("prompt", [[5, 6, 7], [[5, 6, 7]]])
async def test_ids_are_taken_as_they_are(stage: Stage, prompt: Any) -> None:
    assert (await post(stage, prompt=prompt)).status_code == 200
    assert list(stage.decoder.starts[0].input_ids) == [5, 6, 7]


async def test_a_stream_is_the_text_in_pieces_and_its_usage(stage: Stage) -> None:
    stream = await stage.openai.completions.create(
        model="test", prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
    )
    texts = {0: "", 1: ""}
    chunks = [chunk async for chunk in stream]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {0: "Hi there", 1: "Hi there"}
    ends = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert ends.count("stop") == 2
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens == 2
    assert chunks[-1].choices == []


async def test_log_probabilities_have_the_four_lists(stage: Stage) -> None:
    tokens = stage.will_say("Hi there")
    completion = await stage.openai.completions.create(model="test", prompt="a", logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert "".join(logprobs.tokens) == "Hi there"
    assert logprobs.token_logprobs == [-0.5] * len(tokens)
    assert logprobs.text_offset is not None and logprobs.text_offset[0] == 0
    assert logprobs.text_offset[1] == len(logprobs.tokens[0])
    assert logprobs.top_logprobs is not None and len(logprobs.top_logprobs[0]) == 2


async def test_stop_strings_and_forms_work_as_in_conversations(stage: Stage) -> None:
    stage.will_say("one END two")
    body = (await post(stage, prompt="a", stop="END", structured_outputs={"regex": ".*"})).json()
    assert body["choices"][0]["text"] == "one "
    assert stage.decoder.starts[0].constraint.regex == ".*"


async def test_a_thought_is_plain_text_here(stage: Stage) -> None:
    stage.decoder.tokens = stage.tokenizer.encode_prompt("<think>a</think>b", "\ufdd0").ids
    assert (await post(stage, prompt="a")).json()["choices"][0]["text"] == "<think>a</think>b"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": "<|image_pad|>"}, "prompt"),
        ({"prompt": "a" * 9000 + " b" * 5000}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "messages": user()}, "messages"),
        ({"prompt": "a", "tools": []}, "tools"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_not_done_is_refused_by_name(
    stage: Stage, body: dict[str, Any], param: str
) -> None:
    response = await post(stage, **body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert stage.decoder.starts == []


async def test_a_failure_of_a_stream_is_an_error_event(stage: Stage) -> None:
    stage.decoder.ends_without_completion = True
    stream = await stage.openai.completions.create(model="test", prompt="a", stream=True)
    with pytest.raises(openai.APIError):
        [chunk async for chunk in stream]
