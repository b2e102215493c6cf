"""From a conversation to a spliced prompt: ids, positions, spans and the images behind them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from gateway.media.images import (
    DIGEST_KEY_BYTES,
    MediaLimits,
    PlannedImage,
    TierLimits,
    plan_images,
)
from gateway.prompt import provenance
from gateway.prompt.families.family import Positions, ThoughtTokens
from gateway.prompt.families.registry import family_named
from gateway.prompt.inputs import PromptInputs, PromptLimits, check_text_size
from gateway.prompt.long_texts import MOST_TOKENS_PER_CHAR
from gateway.prompt.messages import template_messages, template_tools
from gateway.prompt.options import check_effort, check_options, template_options
from gateway.prompt.plain import check_ids, plain_ids
from gateway.prompt.presence import DIGIT_COUNT, Tagged, check_presence
from gateway.prompt.provenance import Marks
from gateway.prompt.splice import VisualSpan
from gateway.prompt.template import ChatTemplate
from gateway.prompt.tokenizer import Encoded, PromptTokenizer
from gateway.prompt.visuals import VideoPlanner, Visual, arranged
from gateway.request.conversation import Conversation, PlainPrompt
from gateway.tools.format import CallFormat
from protos.bundle.manifest import Bundle, BundleError
from protos.media.images import Grid, ImageSettings
from protos.media.videos import SampledFrames, VideoSettings
from protos.wire.errors import InvalidRequest, PromptTooLong, Unsupported

_SMALLER = ", of images and videos alone; detail low or max_pixels makes them smaller"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompt:
    """A prompt ready for the decoder; S tokens, a span and a grid per image or temporal patch."""

    input_ids: npt.NDArray[np.int32]  # [S], after expansion
    position_ids: npt.NDArray[np.int32]  # [3, S], rows temporal, height, width
    position_delta: int  # a cache length plus this is the next decode position
    spans: tuple[VisualSpan, ...]
    grids: tuple[Grid, ...]
    visuals: tuple[Visual, ...]  # in the order of `spans`; none where the caller encodes
    image_tokens: int  # placeholders of all images
    video_tokens: int  # placeholders of all videos
    # What ends the thought that the answer begins with; None where the template opens no thought.
    thought_end: int | None


class PromptBuilder:
    """Builds prompts of one bundle.

    `prepare` computes for milliseconds to seconds: call it in a worker thread. It is safe for
    use from several threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        limits: PromptLimits | None = None,
        digest_key: bytes | None = None,
    ) -> None:
        """Loads the bundle's processor folder.

        Args:
            bundle: An opened bundle.
            limits: Defaults where None.
            digest_key: 32 bytes for naming images; random for this process where None.

        Raises:
            BundleError: the bundle's family is not served, a file is missing or malformed, or the
                files disagree.
        """
        self._family = family_named(bundle.manifest.family)
        processor = bundle.path / "processor"
        self.tokenizer = PromptTokenizer.from_folder(processor)
        self.settings = ImageSettings.from_file(processor / "preprocessor_config.json")
        self.settings.check_against(bundle.manifest.vision)
        video_settings = VideoSettings.from_file(processor / "video_preprocessor_config.json")
        video_settings.check_against(bundle.manifest.vision)
        self.limits = limits or PromptLimits()
        self.vocab_size = bundle.manifest.text.vocab_size
        self.max_context = bundle.manifest.text.max_position_embeddings
        self._special = bundle.manifest.special_tokens
        self._check_special_tokens()
        self._template = ChatTemplate.from_file(
            processor / "chat_template.jinja", self.tokenizer.named_tokens
        )
        self._ids = {token.content: token.token_id for token in self.tokenizer.added}
        self._added = frozenset(self._ids.values())
        self.thought_tokens = self._find_thought_tokens()
        self.calls = self._find_calls()
        self._reserved = frozenset(self._template.source).union(*self._ids)
        self._special_names, self._other_names = self.tokenizer.token_names()
        spoken = self._family.spoken_tokens
        self._spoken_names = tuple(name for name in self._other_names if name in spoken)
        self._digest_key = digest_key or os.urandom(DIGEST_KEY_BYTES)
        self.videos = VideoPlanner(video_settings, self.limits.videos, self._digest_key)

    def media_limits(self, tiers: Sequence[TierLimits] = ()) -> MediaLimits:
        """What images of a request may be: the lower of our limits and the vision tiers'."""
        return self.limits.media.under(tiers, merge_size=self.settings.merge_size)

    def prepare(
        self,
        conversation: Conversation,
        *,
        max_context: int | None = None,
        tiers: Sequence[TierLimits] = (),
        sampled: Sequence[SampledFrames] = (),
    ) -> PreparedPrompt:
        """The spliced prompt of a conversation.

        Args:
            conversation: What the client sent; checked here.
            max_context: Most tokens of prompt and answer; the model's own where None.
            tiers: What the vision tiers say images and videos may be.
            sampled: What a vision tier chose of each video that is a file, in order.

        Raises:
            InvalidRequest: a message, tool, image or video at fault, named.
            PromptTooLong: no room is left for an answer.

        **Source**: transformers `Qwen3VLProcessor.apply_chat_template(tokenize=True,
        add_generation_prompt=True)`; parity in tests/parity/test_prompt_ids.py.
        """
        window = min(max_context or self.max_context, self.max_context)
        inputs = PromptInputs.of(conversation)
        inputs.check(self.limits)
        self.check_tools(conversation)
        check_options(conversation, self._template.reads, self.tokenizer.named_tokens.keys())
        self._check_texts(inputs)
        images = self._planned(inputs, tiers) if inputs.images else ()
        videos = self.videos.plan(inputs.videos, sampled, tiers) if inputs.videos else ()
        image_tokens = sum(image.token_count for image in images)
        video_tokens = sum(video.patch_tokens * video.grid.t for video in videos)
        planned = image_tokens + video_tokens
        if planned >= window:  # Known before any text is tokenized.
            raise _too_long(planned, window, hint=_SMALLER)
        ids = self._encode_within(inputs, window, beside=planned - len(images) - len(videos))
        prompt = self._family.expand(ids, images, videos, self._special, self.tokenizer.encode_text)
        length = len(prompt.input_ids)
        if length >= window:
            raise _too_long(length, window)
        thought_end = self.open_thought_end(ids)
        check_effort(
            conversation.reasoning_effort,
            self._template.reads,
            opens_thought=thought_end is not None,
        )
        shown = [image.grid for image in images]
        shown += [video.grid._replace(t=1) for video in videos for _ in video.digests]
        grids = tuple(shown[index] for index in prompt.order)
        positions = self.positions(length, prompt.spans, grids)
        return PreparedPrompt(
            input_ids=prompt.input_ids,
            position_ids=positions.ids,
            position_delta=positions.delta,
            spans=prompt.spans,
            grids=grids,
            visuals=arranged(prompt.order, images, videos),
            image_tokens=image_tokens,
            video_tokens=video_tokens,
            thought_end=thought_end,
        )

    def _planned(
        self, inputs: PromptInputs, tiers: Sequence[TierLimits]
    ) -> tuple[PlannedImage, ...]:
        return plan_images(
            inputs.images,
            self.settings,
            limits=self.media_limits(tiers),
            digest_key=self._digest_key,
        )

    def prepare_plain(
        self, plain: PlainPrompt, *, max_context: int | None = None
    ) -> PreparedPrompt:
        """The prompt of a text that stands for itself; see `plain_ids`."""
        window = min(max_context or self.max_context, self.max_context)
        ids = self.plain_ids(plain, window=window)
        positions = self.positions(len(ids), (), ())
        return PreparedPrompt(
            input_ids=np.asarray(ids, dtype=np.int32),
            position_ids=positions.ids,
            position_delta=positions.delta,
            spans=(),
            grids=(),
            visuals=(),
            image_tokens=0,
            video_tokens=0,
            thought_end=None,
        )

    def plain_ids(self, plain: PlainPrompt, *, window: int | None = None) -> list[int]:
        """Token ids of a plain prompt, without a place for an image; see `plain.plain_ids`."""
        ids = plain_ids(
            plain, self.tokenizer, window=window, max_text_bytes=self.limits.max_text_bytes
        )
        check_ids(ids, vocab_size=self.vocab_size, banned=self.placeholders)
        return ids

    @property
    def placeholders(self) -> tuple[int, int]:
        """The tokens that stand for images and for videos."""
        return self._special.image, self._special.video

    def positions(
        self, length: int, spans: Sequence[VisualSpan], grids: Sequence[Grid]
    ) -> Positions:
        """Positions of a spliced prompt; see `PromptFamily.position_ids`."""
        return self._family.position_ids(length, spans, grids, self.settings.merge_size)

    def encode(self, inputs: PromptInputs) -> list[int]:
        """Token ids before expansion; added tokens come from the template only.

        Former answers apart: there the tokens around thoughts and calls are what the model wrote,
        and the prompt goes on as its cached beginning did. Where the template looks into strings
        (to cut `<think>...</think>` out of former answers, say), added tokens that are not special
        may be the client's; see `provenance.strategies`.

        Raises:
            InvalidRequest: the template refuses the conversation, or its text cannot be told
                from the template's tokens.
        """
        rendered = self._render(inputs.conversation, provenance.UNMARKED)
        return self._encode(inputs, rendered).ids

    def _encode_within(self, inputs: PromptInputs, window: int, *, beside: int) -> list[int]:
        """The same, given up as soon as it and `beside` more tokens cannot fit the window.

        Raises:
            InvalidRequest: as `encode`; or param `messages[i]`, the template leaves message i out.
            PromptTooLong: no room is left for an answer.
        """
        rendered = self._render(inputs.conversation, provenance.UNMARKED)
        if MOST_TOKENS_PER_CHAR * len(rendered) + beside >= window:  # of others it is not asked
            least = self.tokenizer.least_tokens(rendered) + beside
            if least >= window:
                raise _too_long(least, window, "at least ")
        encoded = self._checked(inputs, rendered, most=window - 1 - beside)
        if not encoded.whole:
            raise _too_long(len(encoded.ids) + beside, window, "at least ")
        return encoded.ids

    def _checked(self, inputs: PromptInputs, rendered: str, most: int) -> Encoded:
        """Ids of a rendered prompt in which every text of the client's is written.

        Both of what is to be shown take a rendering: that added tokens are the template's, and that
        it writes all texts. One with markers and tags shows both, unless the template looks into
        texts.

        Raises:
            InvalidRequest: as `_encode_within`.
        """
        marker, *digits = self._markers(inputs, 1 + DIGIT_COUNT)
        tagged = Tagged(inputs.conversation, tuple(digits))
        marked = self._render(tagged.conversation, next(self._strategies(marker)))
        prompt = marked.replace(marker, "")
        if tagged.untagged(prompt) == rendered:
            tagged.check(prompt)
            return self.tokenizer.encode_prompt(tagged.untagged(marked), marker, most=most)
        check_presence(tagged, rendered, partial(self._render, marks=provenance.UNMARKED))
        return self._encode(inputs, rendered, most)

    def _encode(self, inputs: PromptInputs, rendered: str, most: int | None = None) -> Encoded:
        (marker,) = self._markers(inputs, 1)
        for marks in self._strategies(marker):
            marked = self._render(inputs.conversation, marks)
            if marked.replace(marker, "") == rendered:
                return self.tokenizer.encode_prompt(marked, marker, most=most)
        raise InvalidRequest(
            "messages hold special tokens at a place where the model's chat template interprets"
            " the text",
            param="messages",
        )

    def _strategies(self, marker: str) -> Iterator[Marks]:
        return provenance.strategies(
            marker, self._special_names, self._other_names, self._spoken_names
        )

    def _markers(self, inputs: PromptInputs, count: int) -> tuple[str, ...]:
        """Characters that neither the conversation nor the template nor an added token has."""
        texts = (*inputs.texts, *inputs.other_texts)
        return provenance.choose_markers(texts, count, taken=self._reserved)

    def _render(self, conversation: Conversation, marks: Marks) -> str:
        return self._template.render(
            template_messages(conversation, marks),
            template_tools(conversation, marks),
            options=template_options(conversation, self._template.reads, marks),
        )

    def _check_texts(self, inputs: PromptInputs) -> None:
        texts = (*inputs.texts, *inputs.other_texts)
        check_text_size(texts, self.limits.max_text_bytes, field="messages")

    def _find_thought_tokens(self) -> ThoughtTokens | None:
        """The tokens around thoughts, where the checkpoint thinks: its template knows them."""
        begin, end = self._family.thought_tokens
        if not {begin, end} <= self._ids.keys() or begin not in self._template.source:
            return None
        return ThoughtTokens(self._ids[begin], self._ids[end])

    def _find_calls(self) -> CallFormat | None:
        """How the checkpoint calls tools, where it does: its template tells the model of them."""
        form = self._family.tools
        if form is None or not {form.begin, form.end} <= self._ids.keys():
            return None
        if "tools" not in self._template.reads:
            return None
        return CallFormat(form, self._ids[form.begin], self._ids[form.end])

    def check_tools(self, conversation: Conversation) -> None:
        """Refuses tools that the checkpoint does not know.

        Raises:
            Unsupported: with what its template lacks.
        """
        if conversation.tools and self.calls is None:
            raise Unsupported(
                "tools are not supported: the model's chat template has no place for them",
                param="tools",
            )

    def open_thought_end(self, ids: Sequence[int]) -> int | None:
        """The end of the thought that the last added token opens, as templates do at their end."""
        if self.thought_tokens is None:
            return None
        last = next((token for token in reversed(ids) if token in self._added), None)
        return self.thought_tokens.end if last == self.thought_tokens.begin else None

    def _check_special_tokens(self) -> None:
        names = {token.token_id: token.content for token in self.tokenizer.added}
        for field in self._family.template_tokens:
            token_id = getattr(self._special, field)
            if token_id not in names:
                raise BundleError(
                    f"processor/tokenizer.json has no added token {token_id}, which the manifest"
                    f" names as the {field} token"
                )


def _too_long(length: int, window: int, qualifier: str = "", *, hint: str = "") -> PromptTooLong:
    return PromptTooLong.of(
        window,
        f"your messages resulted in {qualifier}{length} tokens > limit {window - 1} with room for"
        f" one token of answer{hint}",
        param="messages",
    )
