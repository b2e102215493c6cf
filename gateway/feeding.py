"""Passes the features that a decoder needs on into its call, while its tokens are read."""

import asyncio
import time
from collections.abc import Sequence

from gateway.answer.events import Admitted
from gateway.answer.timings import Stopwatch
from gateway.brought.features import BroughtFeatures
from gateway.request.deadlines import Patience
from gateway.tiers.attempts import FeaturesCut
from gateway.tiers.calls.generate import CallEnded, DecoderLost, GenerateCall
from gateway.tiers.features import FeatureSource
from protos.media.images import Grid
from protos.wire.errors import ServiceError

# Features that come later than this before the first token is due are of no use. Ending their
# encoding then lets the error name the image.
ENCODED_BEFORE_S = 0.1

Features = FeatureSource | BroughtFeatures


class Feeder:
    """Feeds the calls of one choice: the first one, and each that an answer is moved to.

    Args:
        features: Where they come from.
        grids: Of every span of the prompt.
        watch: Told of encodings.
        patience: How long encoding may take.
    """

    def __init__(
        self, features: Features, grids: Sequence[Grid], watch: Stopwatch, patience: Patience
    ) -> None:
        self._features = features
        self._grids = grids
        self._watch = watch
        self._patience = patience

    async def begin(
        self, call: GenerateCall, admitted: Admitted, needed: Sequence[int], *, by_s: float
    ) -> "asyncio.Future[None]":
        """Feeds a call in a task; one that needs no features is told so at once.

        Args:
            call: Of the decoder.
            admitted: Which spans it lacks.
            needed: The sources that have them, by `features.needed`.
            by_s: When the decoder's next message must be here, `time.monotonic()` seconds.

        Returns:
            Done when all are sent. Its error is a ServiceError, of the first image or video that
            could not be encoded, or DecoderLost: the features of one broke off in their midst;
            they are sent anew with another call.
        """
        if needed:
            return asyncio.create_task(self._feed(call, admitted, needed, by_s))
        await call.finish_sending()
        fed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fed.set_result(None)
        return fed

    async def _feed(
        self, call: GenerateCall, admitted: Admitted, needed: Sequence[int], by_s: float
    ) -> None:
        """Passes on the features of every needed span, of all at the same time."""
        wanted = frozenset(admitted.needed_spans)
        patches = sum(self._grids[index].patches for index in wanted)
        encode_by_s = time.monotonic() + self._patience.encode_within_s(patches)
        by_s = min(by_s - ENCODED_BEFORE_S, encode_by_s)

        async def feed(index: int) -> None:
            try:
                summary = await self._features.send(index, wanted, call.send_features, by_s=by_s)
            except FeaturesCut as error:  # this call has a part of them, and gets no other
                raise DecoderLost(error) from error
            self._watch.encoded(summary)

        try:
            async with asyncio.TaskGroup() as feeding:
                for index in needed:
                    feeding.create_task(feed(index))
        except* CallEnded:
            pass  # reading the call tells why
        except* (ServiceError, DecoderLost) as group:
            raise group.exceptions[0] from None
        await call.finish_sending()
