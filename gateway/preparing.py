"""Prompts of conversations and of plain texts, made in the lane that their length asks for."""

import time
from collections.abc import Callable
from functools import partial

from gateway.media.images import MediaLimits
from gateway.media.pdfs import PdfLimits
from gateway.media.videos import VideoLimits
from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.prompt.inputs import videos_of, weight_of
from gateway.prompt.plain import weight_of_plain
from gateway.request.conversation import Conversation, FilePart, PlainPrompt
from gateway.request.deadlines import Patience
from gateway.request.job import ChatJob
from gateway.request.media import parts_of, with_parts
from gateway.threads import Threads
from gateway.tiers.readings import Renderings, Samplings
from gateway.tiers.vision import VisionClient
from protos.media.videos import SampledFrames
from protos.wire.errors import PromptTooLong


class Prompts:
    """Makes the prompts of one bundle.

    Args:
        builder: Builds them.
        vision: Says what images may be, which frames of videos are seen, and what PDFs show.
        threads: Where they are built.
        patience: How long the tier may take to choose frames.
    """

    def __init__(
        self,
        builder: PromptBuilder,
        vision: VisionClient,
        *,
        threads: Threads,
        patience: Patience,
    ) -> None:
        self._builder = builder
        self._vision = vision
        self._threads = threads
        self._patience = patience
        self._samplings = Samplings(vision)
        self._renderings = Renderings(vision)

    def media_limits(self) -> MediaLimits:
        """What images of a request may be just now."""
        return self._builder.media_limits(self._vision.image_limits)

    def video_limits(self) -> VideoLimits:
        """What videos of a request may be just now."""
        return self._builder.videos.limits(self._vision.image_limits)

    def pdf_limits(self) -> PdfLimits:
        """What PDFs of a request may be just now."""
        return self._builder.limits.pdfs.under(self._vision.image_limits)

    async def with_pages(
        self,
        conversation: Conversation,
        *,
        request_id: str,
        by_s: float,
        hold: Callable[[int], None],
    ) -> Conversation:
        """The conversation with the pages of every PDF in it; see `Renderings.of`."""
        files = parts_of(conversation, FilePart)
        if not files:
            return conversation
        found = await self._renderings.of(
            files, self.pdf_limits(), request_id=request_id, by_s=by_s, hold=hold
        )
        return with_parts(conversation, found)

    async def prepare(
        self,
        conversation: Conversation,
        *,
        request_id: str = "",
        by_s: float | None = None,
        max_context: int | None = None,
    ) -> PreparedPrompt:
        """The spliced prompt of a conversation; see `PromptBuilder.prepare`.

        Args:
            conversation: What the client sent.
            request_id: Travels with the calls about its videos.
            by_s: When their answers must be here; None: as soon as whole answers to requests.
            max_context: Most tokens of prompt and answer; the model's own where None.
        """
        limits, videos = self._vision.image_limits, videos_of(conversation)
        sampled: list[SampledFrames] = []
        if videos:
            sampled = await self._samplings.of(
                videos,
                self._builder.videos.samplings(videos, limits),
                request_id=request_id,
                by_s=time.monotonic() + self._patience.request_s if by_s is None else by_s,
            )
        return await self._threads.run(
            partial(
                self._builder.prepare,
                conversation,
                max_context=max_context,
                tiers=limits,
                sampled=sampled,
            ),
            weight_of(conversation),
        )

    async def prepare_plain(
        self, plain: PlainPrompt, *, max_context: int | None = None
    ) -> PreparedPrompt:
        """The prompt of a text that stands for itself; see `PromptBuilder.prepare_plain`."""
        return await self._threads.run(
            partial(self._builder.prepare_plain, plain, max_context=max_context),
            weight_of_plain(plain),
        )

    async def plain_ids(self, plain: PlainPrompt) -> list[int]:
        """Token ids of a text, however many; see `PromptBuilder.plain_ids`."""
        return await self._threads.run(
            partial(self._builder.plain_ids, plain), weight_of_plain(plain)
        )


def check_length(prompt: PreparedPrompt, job: ChatJob, *, max_context: int) -> None:
    """Checks that the wanted completion fits behind the prompt, before anything is encoded.

    Raises:
        PromptTooLong: with the counts.
    """
    length = len(prompt.input_ids)
    stopping = job.question.stopping
    wanted = stopping.max_tokens
    if wanted is not None and not stopping.may_be_cut and length + wanted > max_context:
        field = stopping.max_tokens_field
        raise PromptTooLong.of(
            max_context,
            f"you requested {length + wanted} tokens ({length} in the messages, {wanted} by"
            f" {field})",
            param=field,
        )
