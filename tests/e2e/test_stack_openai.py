"""The official openai client against the three real services."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.support.bundles import bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import ONE_IMAGE, SEVERAL_TURNS, DrawnImage, Talk, Turn

MODEL = "tiny-tied"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0.0}
QUESTION = [{"role": "user", "content": "Count the legs of a spider."}]


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.stack.http_url, api_key="unused", max_retries=0) as opened:
        yield opened


def data_url(image: DrawnImage, form: str = "PNG") -> str:
    stream = io.BytesIO()
    image.pixels().save(stream, form)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{encoded}"


def openai_messages(talk: Talk) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": _content(turn)} for turn in talk.turns]


def _content(turn: Turn) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in turn.parts
    ]


def answer(client: OpenAI, messages: Any, **options: Any) -> Any:
    options = {"max_tokens": 24, **GREEDY, **options}
    return client.chat.completions.create(messages=messages, **options)


def streamed(client: OpenAI, messages: Any, **options: Any) -> tuple[str, list[Any]]:
    chunks = list(answer(client, messages, stream=True, **options))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return "".join(pieces), chunks


def test_the_served_model_is_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_text_is_answered_with_usage_and_finish_reason(client: OpenAI, served: ServedStack) -> None:
    talk = Talk(name="question", turns=(Turn("user", (QUESTION[0]["content"],)),))
    completion = answer(client, QUESTION, extra_body={"ignore_eos": True})
    assert completion.choices[0].finish_reason == "length"
    assert completion.choices[0].message.content
    assert completion.usage.prompt_tokens == len(served.prepare(talk).input_ids)
    assert completion.usage.completion_tokens == 24
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 24


@pytest.mark.parametrize("talk", [ONE_IMAGE, SEVERAL_TURNS], ids=lambda talk: talk.name)
def test_a_streamed_answer_is_the_whole_answer_in_pieces(client: OpenAI, talk: Talk) -> None:
    whole = answer(client, openai_messages(talk), extra_body={"ignore_eos": True})
    text, chunks = streamed(
        client,
        openai_messages(talk),
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    assert text == whole.choices[0].message.content
    assert sum(1 for chunk in chunks if chunk.choices) > 2
    counted = {"prompt_tokens", "completion_tokens", "total_tokens"}  # not those found cached
    assert chunks[-1].usage.model_dump(include=counted) == whole.usage.model_dump(include=counted)
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_images_in_data_urls_are_seen_as_over_grpc(client: OpenAI, served: ServedStack) -> None:
    completion = answer(client, openai_messages(ONE_IMAGE), extra_body={"ignore_eos": True})
    assert completion.choices[0].message.content == served.greedy(ONE_IMAGE, 24).text


def test_another_image_gives_another_answer(client: OpenAI) -> None:
    answers = set()
    for seed in range(3):
        turn = Turn("user", (DrawnImage(width=120, height=90, seed=seed), "What do you see?"))
        messages = openai_messages(Talk(name="seeds", turns=(turn,)))
        answers.add(answer(client, messages).choices[0].message.content)
    assert len(answers) == 3


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "BMP"])
def test_every_image_format_is_answered(client: OpenAI, form: str) -> None:
    url = data_url(DrawnImage(width=80, height=64), form)
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    assert answer(client, [{"role": "user", "content": parts}]).usage.completion_tokens >= 1


def test_a_stop_string_ends_the_answer_before_it(client: OpenAI) -> None:
    whole = answer(client, QUESTION, extra_body={"ignore_eos": True}).choices[0].message.content
    stop = whole[4:7]
    cut = answer(client, QUESTION, stop=[stop], extra_body={"ignore_eos": True}).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(stop)]


def test_stop_strings_work_alike_in_a_stream(client: OpenAI) -> None:
    whole = answer(client, QUESTION, extra_body={"ignore_eos": True}).choices[0].message.content
    stop = whole[4:7]
    text, chunks = streamed(client, QUESTION, stop=stop, extra_body={"ignore_eos": True})
    assert text == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_sampled_answer(client: OpenAI) -> None:
    texts = {
        answer(client, QUESTION, temperature=1.5, seed=7).choices[0].message.content
        for _ in range(3)
    }
    assert len(texts) == 1


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        answer(client, QUESTION, model="gpt-4")
    assert caught.value.code == "model_not_found"


def test_a_broken_image_is_refused_by_its_place(client: OpenAI) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()[:60]).decode()
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError) as caught:
        answer(client, [{"role": "user", "content": parts}])
    assert caught.value.code == "invalid_image"
    assert caught.value.param is not None
    assert caught.value.param.startswith("messages[0].content[1]")


def test_leaving_a_stream_frees_its_slot(client: OpenAI, served: ServedStack) -> None:
    stream = answer(client, QUESTION, stream=True, max_tokens=3500, extra_body={"ignore_eos": True})
    for _ in range(3):
        next(stream)
    assert served.load().running_count == 1
    stream.close()
    served.wait_until_idle()
