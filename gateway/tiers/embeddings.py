"""Features that were encoded lately, kept within bytes and shared by everyone who asks for them.

A moved answer, a second decoder, or a sequence whose image the decoder no longer has costs the
vision tower nothing again, and an image that many ask for at once is encoded once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.request.deadlines import seconds_left
from gateway.tiers.attempts import Encodable, Forward
from protos.bundle.manifest import Manifest
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire.errors import DeadlineExceeded, ServiceError, error_for

# Encodes something and passes each chunk of its features on as it comes.
Encode = Callable[[Forward], Awaitable[vision_pb2.EncodeSummary]]


def features_bytes(manifest: Manifest) -> int:
    """Most bytes of one token's features: float32, on all levels."""
    levels = 1 + manifest.deepstack_level_count
    return 4 * levels * manifest.text.hidden_size


class EmbeddingKey(NamedTuple):
    """What features follow from, besides the bundle.

    `salt` parts those who must not notice each other's images; `digests` are the keyed names of
    the spans that one encoding fills, which tell file, frames and size.
    """

    salt: bytes
    digests: tuple[bytes, ...]


class EmbeddingCache:
    """Keeps encodings, the least recently used dropped first.

    An encoding is known from its beginning: who asks meanwhile reads it as it comes. It goes on
    while a request that asked for it is at work, whoever began it, also when its decoder is lost
    and another's call is yet to be made. One that fails, or that all have left, is forgotten.

    Args:
        max_bytes: Most bytes of features, those of encodings at work included; None for no bound.
        token_bytes: Most bytes of one token's features, on all levels.

    Attributes:
        hits: Times that somebody found what was kept or being encoded.
        misses: Times that it had to be encoded.
        size_bytes: What is kept, and what encodings at work may come to.
    """

    def __init__(self, *, max_bytes: int | None, token_bytes: int) -> None:
        self.hits = 0
        self.misses = 0
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._token_bytes = token_bytes
        self._encodings: OrderedDict[EmbeddingKey, _Encoding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._encodings)

    def without_bound(self) -> "EmbeddingCache":
        """An empty one that keeps whatever it is asked for: for as long as one request."""
        return EmbeddingCache(max_bytes=None, token_bytes=self._token_bytes)

    async def send(
        self,
        key: EmbeddingKey,
        source: Encodable,
        encode: Encode,
        forward: Forward,
        *,
        by_s: float,
        holder: object,
    ) -> vision_pb2.EncodeSummary | None:
        """Passes features to `forward`, from what is kept or as they are encoded.

        Args:
            key: Names them.
            source: What to encode where they are not there.
            encode: Encodes it; by `by_s`.
            forward: Takes every chunk, in order.
            by_s: When all features must be here, `time.monotonic()` seconds.
            holder: Who asks, until `leave`.

        Returns:
            What the encoding took, zeros where it was complete already; None, and nothing is
            passed on, where there is no room to keep it.

        Raises:
            ServiceError: it could not be encoded; it names this `source`, whoever began it.
        """
        while True:
            encoding = self._found(key) or self._begun(key, source, encode, by_s)
            if encoding is None:
                return None
            encoding.readers += 1
            if not encoding.is_complete:
                encoding.holders.add(holder)
            try:
                return await encoding.read(source, forward, by_s)
            except _OthersDeadline:
                continue  # it was too short for them, not for us
            finally:
                encoding.readers -= 1

    def leave(self, holder: object) -> None:
        """Whoever asked needs nothing any more: what is encoded for nobody else is given up."""
        at_work = [(key, each) for key, each in self._encodings.items() if not each.is_complete]
        for key, encoding in at_work:
            encoding.holders.discard(holder)
            if not encoding.holders:
                self._forget(key, encoding)
                encoding.task.cancel()

    def _found(self, key: EmbeddingKey) -> "_Encoding | None":
        encoding = self._encodings.get(key)
        if encoding is not None:
            self.hits += 1
            self._encodings.move_to_end(key)
        return encoding

    def _begun(
        self, key: EmbeddingKey, source: Encodable, encode: Encode, by_s: float
    ) -> "_Encoding | None":
        self.misses += 1
        size_bytes = source.token_count * self._token_bytes
        if not self._make_room(size_bytes):
            return None
        encoding = _Encoding(source, size_bytes, by_s)
        self._encodings[key] = encoding
        self.size_bytes += size_bytes
        encoding.task = asyncio.create_task(self._run(key, encoding, encode))
        # Taken note of, in case nobody waits any more.
        encoding.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return encoding

    def _make_room(self, size_bytes: int) -> bool:
        """Drops what nobody reads until there is room; False where that is not enough."""
        if self._max_bytes is None:
            return True
        idle = [
            (key, each)
            for key, each in self._encodings.items()
            if each.is_complete and not each.readers
        ]
        freed_bytes = sum(each.size_bytes for _, each in idle)
        if self.size_bytes - freed_bytes + size_bytes > self._max_bytes:
            return False
        for key, encoding in idle:
            if self.size_bytes + size_bytes <= self._max_bytes:
                break
            self._forget(key, encoding)
        return True

    def _forget(self, key: EmbeddingKey, encoding: "_Encoding") -> None:
        if self._encodings.get(key) is encoding:
            del self._encodings[key]
            self.size_bytes -= encoding.size_bytes

    async def _run(
        self, key: EmbeddingKey, encoding: "_Encoding", encode: Encode
    ) -> vision_pb2.EncodeSummary:
        try:
            summary = await encode(encoding.add)
        except BaseException:  # Cancelling included: what is not whole is not kept.
            self._forget(key, encoding)
            raise
        else:
            self.size_bytes += encoding.complete()
            return summary
        finally:
            encoding.end()


class _OthersDeadline(Exception):
    """An encoding ended because whoever began it could not wait any longer."""


class _Encoding:
    """The chunks of one encoding so far; everyone who reads it gets all of them.

    `readers` are reading just now; `holders` asked for it before it was complete.
    """

    def __init__(self, source: Encodable, size_bytes: int, by_s: float) -> None:
        self.size_bytes = size_bytes
        self.readers = 0
        self.holders: set[object] = set()
        self.is_complete = False
        self.task: asyncio.Task[vision_pb2.EncodeSummary]
        self._source = source
        self._by_s = by_s
        self._chunks: list[tensor_pb2.FeatureChunk] = []
        self._has_ended = False
        self._grown = asyncio.Event()

    async def add(self, chunk: tensor_pb2.FeatureChunk) -> None:
        self._chunks.append(chunk)
        self._wake()

    def complete(self) -> int:
        """All chunks are there; returns by how many bytes it grew against what was planned."""
        self.is_complete = True
        planned, self.size_bytes = self.size_bytes, sum(each.ByteSize() for each in self._chunks)
        return self.size_bytes - planned

    def end(self) -> None:
        self._has_ended = True
        self._wake()

    async def read(
        self, source: Encodable, forward: Forward, by_s: float
    ) -> vision_pb2.EncodeSummary:
        """Passes all chunks on; see `EmbeddingCache.send`."""
        if self.is_complete:
            for chunk in self._chunks:
                await forward(chunk)
            return vision_pb2.EncodeSummary()
        passed = 0
        try:
            # Its own deadline ends the call that began it, and says more.
            async with asyncio.timeout(None if by_s >= self._by_s else seconds_left(by_s)):
                while passed < len(self._chunks) or not self._has_ended:
                    if passed == len(self._chunks):
                        await self._grown.wait()
                        continue
                    await forward(self._chunks[passed])
                    passed += 1
                return await asyncio.shield(self.task)  # who is cancelled must not cancel it
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{source.field} was not encoded before the deadline", param=source.field
            ) from error
        except ServiceError as error:
            if isinstance(error, DeadlineExceeded) and not passed and by_s > self._by_s:
                raise _OthersDeadline from error
            raise self._named(error, source) from error

    def _named(self, error: ServiceError, source: Encodable) -> ServiceError:
        """The same error about the place that the image has in a reader's own request."""
        theirs, ours = self._source.field, source.field
        if error.param != theirs or theirs == ours:
            return error
        return error_for(
            error.reason,
            error.message.replace(theirs, ours),
            param=ours,
            retry_after_s=error.retry_after_s,
        )

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()
