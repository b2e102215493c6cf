"""From a conversation to a spliced prompt: ids, positions, spans and the images behind them."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

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
from gateway.prompt.families.registry import family_named
from gateway.prompt.inputs import PromptInputs, PromptLimits
from gateway.prompt.messages import template_messages, template_tools
from gateway.prompt.provenance import Marks
from gateway.prompt.splice import VisualSpan
from gateway.prompt.template import ChatTemplate
from gateway.prompt.tokenizer import PromptTokenizer
from gateway.request.conversation import Conversation
from protos.bundle.manifest import Bundle, BundleError
from protos.media.images import Grid, ImageSettings
from protos.wire.errors import InvalidRequest, PromptTooLong, Reason

_SMALLER = ", of images alone; detail low or max_pixels makes them smaller"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompt:
    """A prompt ready for the decoder; S tokens, one span, grid and image per image."""

    input_ids: npt.NDArray[np.int32]  # [S], after expansion
    position_ids: npt.NDArray[np.int32]  # [3, S], rows temporal, height, width
    position_delta: int  # a cache length plus this is the next decode position
    spans: tuple[VisualSpan, ...]
    grids: tuple[Grid, ...]
    images: tuple[PlannedImage, ...]


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
        self.limits = limits or PromptLimits()
        self.max_context = bundle.manifest.text.max_position_embeddings
        self._special = bundle.manifest.special_tokens
        self._check_special_tokens()
        self._template = ChatTemplate.from_file(
            processor / "chat_template.jinja", self.tokenizer.named_tokens
        )
        self._reserved = (self._template.source, *(token.content for token in self.tokenizer.added))
        self._digest_key = digest_key or os.urandom(DIGEST_KEY_BYTES)

    def media_limits(self, tiers: Sequence[TierLimits] = ()) -> MediaLimits:
        """What images of a request may be: the lower of our limits and the vision tiers'."""
        return self.limits.media.under(tiers, merge_size=self.settings.merge_size)

    def prepare(
        self,
        conversation: Conversation,
        *,
        max_context: int | None = None,
        tiers: Sequence[TierLimits] = (),
    ) -> PreparedPrompt:
        """The spliced prompt of a conversation.

        Args:
            conversation: What the client sent; checked here.
            max_context: Most tokens of prompt and answer; the model's own where None.
            tiers: What the vision tiers say images may be.

        Raises:
            InvalidRequest: a message, tool or image at fault, named.
            PromptTooLong: no room is left for an answer.
            Unsupported: VIDEO_NOT_SUPPORTED.

        **Source**: transformers `Qwen3VLProcessor.apply_chat_template(tokenize=True,
        add_generation_prompt=True)`; parity in tests/parity/test_prompt_ids.py.
        """
        window = min(max_context or self.max_context, self.max_context)
        inputs = PromptInputs.of(conversation)
        inputs.check(self.limits)
        self._check_texts(inputs, window)
        images = plan_images(
            inputs.images,
            self.settings,
            limits=self.media_limits(tiers),
            digest_key=self._digest_key,
        )
        planned = sum(image.token_count for image in images)
        if planned >= window:  # Known before any text is tokenized.
            raise _too_long(planned, window, hint=_SMALLER)
        prompt = self._family.expand(self.encode(inputs), images, self._special)
        length = len(prompt.input_ids)
        if length >= window:
            raise _too_long(length, window)
        grids = tuple(image.grid for image in images)
        merge_size = self.settings.merge_size
        positions = self._family.position_ids(length, prompt.spans, grids, merge_size)
        return PreparedPrompt(
            input_ids=prompt.input_ids,
            position_ids=positions.ids,
            position_delta=positions.delta,
            spans=prompt.spans,
            grids=grids,
            images=images,
        )

    def encode(self, inputs: PromptInputs) -> list[int]:
        """Token ids before expansion; added tokens come from the template only.

        Where the template looks into strings (to cut `<think>...</think>` out of former
        answers, say), added tokens that are not special may be the client's; see
        `provenance.strategies`.

        Raises:
            InvalidRequest: the template refuses the conversation, or its text cannot be told
                from the template's tokens.
        """
        conversation = inputs.conversation
        rendered = self._render(conversation, provenance.UNMARKED)
        marker = provenance.choose_marker((*inputs.texts, *inputs.other_texts, *self._reserved))
        for marks in provenance.strategies(marker, *self.tokenizer.token_names()):
            marked = self._render(conversation, marks)
            if marked.replace(marker, "") == rendered:
                return self.tokenizer.encode_prompt(marked, marker)
        raise InvalidRequest(
            "messages hold special tokens at a place where the model's chat template interprets"
            " the text",
            param="messages",
        )

    def _render(self, conversation: Conversation, marks: Marks) -> str:
        return self._template.render(
            template_messages(conversation, marks),
            template_tools(conversation, marks),
            add_vision_id=conversation.add_vision_id,
        )

    def _check_texts(self, inputs: PromptInputs, window: int) -> None:
        try:
            size = sum(len(text.encode()) for text in (*inputs.texts, *inputs.other_texts))
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                "messages hold a text that is not valid Unicode (a lone surrogate)",
                param="messages",
            ) from error
        if size > self.limits.max_text_bytes:
            raise InvalidRequest(
                f"messages hold {size} bytes of text, expected at most"
                f" {self.limits.max_text_bytes}",
                reason=Reason.REQUEST_TOO_LARGE,
                param="messages",
            )
        if size >= window * self.tokenizer.max_token_bytes:
            self._check_least_tokens(inputs, window)

    def _check_least_tokens(self, inputs: PromptInputs, window: int) -> None:
        # Composing accents (NFC) makes a text shorter before it is cut into tokens.
        texts = (unicodedata.normalize("NFC", text) for text in inputs.texts)
        least = sum(len(text.encode()) for text in texts) // self.tokenizer.max_token_bytes
        if least >= window:
            raise _too_long(least, window, "at least ")

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
    return PromptTooLong(
        f"messages make {qualifier}{length} tokens > limit {window - 1}"
        f" (a context of {window} with room for one token of answer){hint}",
        param="messages",
    )
