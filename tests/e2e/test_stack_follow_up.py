"""A second question about the same image, through the three real services."""

from dataclasses import replace

import pytest

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.support.bundles import bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import DrawnImage, Part, Talk, Turn

IMAGE = DrawnImage(width=160, height=120, seed=41)
LIKE_IT = DrawnImage(width=160, height=120, seed=42)


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


def ask(
    served: ServedStack, *turns: Turn, cache_salt: str = ""
) -> tuple[str, gateway_pb2.ChatCompletion]:
    """The greedy answer's text, and at what cost."""
    request = gateway_pb2.ChatRequest(
        messages=Talk(name="follow-up", turns=turns).to_proto(),
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=12, ignore_eos=True),
        cache_salt=cache_salt,
    )
    chunks = list(served.chat.complete(request))
    return "".join(chunk.text for chunk in chunks), chunks[-1].completion


def about(image: DrawnImage, *parts: Part) -> Turn:
    return Turn("user", (image, *parts))


def test_a_follow_up_encodes_nothing_and_computes_only_what_is_new(served: ServedStack) -> None:
    question = about(IMAGE, "What do you see?")
    said, first = ask(served, question, cache_salt="follow")
    assert first.cached_tokens == 0
    assert first.timings.encode_ms > 0
    turns = (question, Turn("assistant", (said,)), Turn("user", ("Which colour?",)))
    again, second = ask(served, *turns, cache_salt="follow")
    assert second.cached_tokens >= first.prompt_tokens - 1
    assert second.timings.encode_ms == 0
    fresh, third = ask(served, *turns, cache_salt="fresh")
    assert third.cached_tokens == 0
    assert again == fresh


def test_another_question_about_the_image_finds_it(served: ServedStack) -> None:
    _, first = ask(served, about(IMAGE, "What do you see?"), cache_salt="another")
    _, second = ask(served, about(IMAGE, "How many legs?"), cache_salt="another")
    assert second.timings.encode_ms == 0
    assert 0 < second.cached_tokens < first.prompt_tokens


def test_another_image_of_the_same_size_is_looked_at(served: ServedStack) -> None:
    said, _ = ask(served, about(IMAGE, "What do you see?"), cache_salt="other")
    other, completion = ask(served, about(LIKE_IT, "What do you see?"), cache_salt="other")
    assert completion.timings.encode_ms > 0
    assert other != said
    alone, _ = ask(served, about(LIKE_IT, "What do you see?"), cache_salt="alone")
    assert other == alone


def test_only_the_new_one_of_two_images_is_encoded(served: ServedStack) -> None:
    _, first = ask(served, about(IMAGE), cache_salt="two")
    both = about(IMAGE, LIKE_IT)
    _, second = ask(served, both, cache_salt="two")
    assert second.cached_tokens > 0
    assert second.timings.encode_ms > 0
    _, third = ask(served, replace(both, parts=(*both.parts, "Well?")), cache_salt="two")
    assert third.timings.encode_ms == 0
    assert third.cached_tokens > first.prompt_tokens
