"""A prepared prompt that comes back is checked against what the gateway itself would make of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from gateway.brought.prompt import BroughtPrompt, BroughtSpan, prepared
from gateway.media.videos import VideoSizing
from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.request.conversation import Message, Role, VideoPart
from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from protos.tandem.v1 import tensor_pb2
from protos.wire.errors import PromptTooLong, Reason, ServiceError
from tests.support.prompts import parts_of, png, talk, user

KEY = blake3(b"test").digest()


@pytest.fixture(scope="module")
def builder(bundle: Bundle) -> PromptBuilder:
    return PromptBuilder(bundle, digest_key=KEY)


@pytest.fixture(scope="module")
def made(builder: PromptBuilder) -> PreparedPrompt:
    return builder.prepare(talk(user("Which?", png(64, 64), "or", png(96, 64))))


def back(made: PreparedPrompt) -> BroughtPrompt:
    """The prompt as a caller sends it back."""
    return BroughtPrompt(
        input_ids=made.input_ids,
        position_ids=made.position_ids,
        position_delta=made.position_delta,
        spans=tuple(
            BroughtSpan(
                offset=span.offset,
                length=span.length,
                grid=grid,
                dtype=tensor_pb2.DTYPE_FLOAT32,
                digest=bytes([at]) * 32,
            )
            for at, (span, grid) in enumerate(zip(made.spans, made.grids, strict=True))
        ),
    )


@pytest.fixture
def brought(made: PreparedPrompt) -> BroughtPrompt:
    return back(made)


def named(span: BroughtSpan) -> bytes:
    return span.name(KEY)


def check(brought: BroughtPrompt, builder: PromptBuilder, max_context: int = 4096) -> Any:
    return prepared(brought, builder, named, max_context=max_context)


def test_a_prompt_comes_through_as_it_was_made(
    brought: BroughtPrompt, made: PreparedPrompt, builder: PromptBuilder
) -> None:
    result = check(brought, builder)
    assert np.array_equal(result.input_ids, made.input_ids)
    assert np.array_equal(result.position_ids, made.position_ids)
    assert (result.position_delta, result.grids) == (made.position_delta, made.grids)
    assert [(span.offset, span.length) for span in result.spans] == [
        (span.offset, span.length) for span in made.spans
    ]
    assert (result.image_tokens, result.video_tokens) == (made.image_tokens, 0)
    assert result.visuals == ()


def test_a_videos_temporal_patches_are_spans_of_their_own(builder: PromptBuilder) -> None:
    video = VideoPart(frames=(png(64, 64),) * 4, sizing=VideoSizing(fps=2.0))
    message = Message(role=Role.USER, content=(video, *parts_of("Which?", png(64, 64))))
    made = builder.prepare(talk(message))
    result = check(back(made), builder)
    assert len(result.spans) == 3
    assert np.array_equal(result.position_ids, made.position_ids)
    assert (result.image_tokens, result.video_tokens) == (made.image_tokens, made.video_tokens)
    assert made.image_tokens > 0 and made.video_tokens > 0


def test_more_text_is_welcome_with_the_positions_it_gets(
    brought: BroughtPrompt, builder: PromptBuilder
) -> None:
    ids = np.append(brought.input_ids, np.int32(5))
    following = brought.position_ids.max() + 1
    longer = replace(
        brought,
        input_ids=ids,
        position_ids=np.append(brought.position_ids, np.full((3, 1), following), axis=1),
    )
    assert len(check(longer, builder).input_ids) == len(ids)
    with pytest.raises(ServiceError) as caught:
        repeated = np.append(brought.position_ids, np.full((3, 1), following - 1), axis=1)
        check(replace(longer, position_ids=repeated), builder)
    assert caught.value.param == "prompt.position_ids"


def with_span(at: int, **changes: Any) -> Callable[[BroughtPrompt], BroughtPrompt]:
    def change(prompt: BroughtPrompt) -> BroughtPrompt:
        spans = list(prompt.spans)
        spans[at] = replace(spans[at], **changes)
        return replace(prompt, spans=tuple(spans))

    return change


def with_id(at: int, token: int) -> Callable[[BroughtPrompt], BroughtPrompt]:
    def change(prompt: BroughtPrompt) -> BroughtPrompt:
        ids = prompt.input_ids.copy()
        ids[at] = token
        return replace(prompt, input_ids=ids)

    return change


def moved(prompt: BroughtPrompt) -> BroughtPrompt:
    positions = prompt.position_ids.copy()
    positions[1, -1] += 1
    return replace(prompt, position_ids=positions)


def first_longer(prompt: BroughtPrompt) -> BroughtPrompt:
    return with_span(0, length=prompt.spans[0].length + 1)(prompt)


def overlapping(prompt: BroughtPrompt) -> BroughtPrompt:
    return with_span(1, offset=prompt.spans[0].offset + 1)(prompt)


def empty(prompt: BroughtPrompt) -> BroughtPrompt:
    nothing = np.zeros((3, 0), dtype=np.int32)
    return replace(prompt, input_ids=nothing[0], position_ids=nothing, spans=())


def without_the_last(prompt: BroughtPrompt) -> BroughtPrompt:
    return replace(prompt, spans=prompt.spans[:1])


def turned(prompt: BroughtPrompt) -> BroughtPrompt:
    grid = prompt.spans[1].grid
    return with_span(1, grid=Grid(1, grid.w, grid.h))(prompt)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (with_id(3, 10**6), "prompt.input_ids", Reason.INVALID_PARAMETER),
        (with_id(3, -1), "prompt.input_ids", Reason.INVALID_PARAMETER),
        (empty, "prompt.input_ids", Reason.INVALID_PARAMETER),
        (moved, "prompt.position_ids", Reason.INVALID_PARAMETER),
        (turned, "prompt.position_ids", Reason.INVALID_PARAMETER),
        (
            lambda prompt: replace(prompt, position_delta=0),
            "prompt.position_delta",
            Reason.INVALID_PARAMETER,
        ),
        (with_span(0, offset=-1), "prompt.visual_spans[0]", Reason.INVALID_SPAN),
        (with_span(0, length=0), "prompt.visual_spans[0]", Reason.INVALID_SPAN),
        (with_span(1, offset=10**6), "prompt.visual_spans[1]", Reason.INVALID_SPAN),
        (overlapping, "prompt.visual_spans[1]", Reason.INVALID_SPAN),
        (first_longer, "prompt.visual_spans", Reason.INVALID_SPAN),
        (without_the_last, "prompt.visual_spans", Reason.INVALID_SPAN),
        (with_span(0, grid=Grid(2, 4, 4)), "prompt.grid_thw[0]", Reason.INVALID_PARAMETER),
        (with_span(0, grid=Grid(1, 3, 4)), "prompt.grid_thw[0]", Reason.INVALID_PARAMETER),
        (with_span(0, grid=Grid(1, -4, -4)), "prompt.grid_thw[0]", Reason.INVALID_PARAMETER),
        (with_span(1, grid=Grid(1, 2, 2)), "prompt.grid_thw[1]", Reason.SHAPE_MISMATCH),
    ],
)
def test_what_is_not_as_it_would_be_made_is_refused_by_name(
    brought: BroughtPrompt,
    builder: PromptBuilder,
    change: Callable[[BroughtPrompt], BroughtPrompt],
    field: str,
    reason: Reason,
) -> None:
    with pytest.raises(ServiceError) as caught:
        check(change(brought), builder)
    assert (caught.value.param, caught.value.reason) == (field, reason)


def test_a_span_of_two_kinds_is_refused(brought: BroughtPrompt, builder: PromptBuilder) -> None:
    _, video = builder.placeholders
    with pytest.raises(ServiceError) as caught:
        check(with_id(brought.spans[0].offset, video)(brought), builder)
    assert caught.value.param == "prompt.visual_spans[0]"


def test_a_prompt_that_leaves_no_room_is_refused(
    brought: BroughtPrompt, builder: PromptBuilder
) -> None:
    with pytest.raises(PromptTooLong):
        check(brought, builder, max_context=len(brought.input_ids))
    assert check(brought, builder, max_context=len(brought.input_ids) + 1)


def test_as_many_images_as_in_a_conversation_are_taken(builder: PromptBuilder) -> None:
    image, _ = builder.placeholders
    most = builder.limits.media.max_request_images
    for count in (most, most + 1):
        ids = np.array([5, *[image, 5] * count], dtype=np.int32)
        spans = tuple(
            BroughtSpan(offset=2 * at + 1, length=1, grid=Grid(1, 2, 2), dtype=1, digest=b"")
            for at in range(count)
        )
        positions = np.tile(np.arange(len(ids), dtype=np.int32), (3, 1))
        prompt = BroughtPrompt(input_ids=ids, position_ids=positions, position_delta=0, spans=spans)
        if count == most:
            assert check(prompt, builder).image_tokens == most
            continue
        with pytest.raises(ServiceError) as caught:
            check(prompt, builder)
        assert caught.value.param == "prompt.visual_spans"


def test_names_follow_from_the_features_and_are_no_images(
    brought: BroughtPrompt, made: PreparedPrompt, builder: PromptBuilder
) -> None:
    first, second = check(brought, builder).spans
    assert first.digest != second.digest
    assert not {first.digest, second.digest} & {span.digest for span in made.spans}
    same = with_span(1, digest=brought.spans[0].digest)(brought)
    assert check(same, builder).spans[1].digest == first.digest
    other = with_span(0, dtype=tensor_pb2.DTYPE_BFLOAT16)(brought)
    assert check(other, builder).spans[0].digest != first.digest
    assert brought.spans[0].name(KEY) != brought.spans[0].name(KEY[::-1])


def test_prompts_that_begin_alike_have_one_affinity(brought: BroughtPrompt) -> None:
    alike = with_id(-1, 7)(brought)
    assert brought.affinity(b"a") == alike.affinity(b"a") != brought.affinity(b"b")
    assert with_id(0, 7)(brought).affinity(b"a") != brought.affinity(b"a")
    assert with_span(0, digest=b"other")(brought).affinity(b"a") != brought.affinity(b"a")
