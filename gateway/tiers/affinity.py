"""Which requests probably begin alike, so that they should go to the same decoder."""

from collections.abc import Iterator
from itertools import islice

from blake3 import blake3

from gateway.request.conversation import (
    Conversation,
    FilePart,
    ImagePart,
    PlainPrompt,
    Role,
    TextPart,
)

# As much as is looked at, because the event loop waits for it; only a guess depends on it.
_MOST_PARTS = 32
_MOST_BYTES = 64 * 1024  # of one of them
_PLAIN_CHARS = 1024


def affinity(
    conversation: Conversation, cache_salt: bytes, *, plain: PlainPrompt | None = None
) -> bytes:
    """A name that conversations with the same beginning share, 32 bytes.

    Of a plain prompt the first KiB is looked at.

    The beginning is everything up to the first image, video or PDF, which costs most; without one,
    everything up to the end of the first user message. So a follow-up, and another question
    about the same image, find the decoder that has the prefix.
    """
    named = blake3(cache_salt)
    if plain is not None:
        beginning = plain.text[:_PLAIN_CHARS] or repr((plain.ids or ())[:_PLAIN_CHARS])
        return named.update(beginning.encode(errors="surrogatepass")).digest()
    for kind, data in islice(_beginning(conversation), _MOST_PARTS):
        named.update(kind + len(data).to_bytes(8, "little") + data[:_MOST_BYTES])
        if kind == b"image":
            break
    return named.digest()


def _beginning(conversation: Conversation) -> Iterator[tuple[bytes, bytes]]:
    for message in conversation.messages:
        content = message.content or ""
        parts = (TextPart(text=content),) if isinstance(content, str) else content
        for part in parts:
            if isinstance(part, TextPart):
                yield b"text", part.text[:_MOST_BYTES].encode(errors="surrogatepass")
            elif isinstance(part, ImagePart | FilePart):
                yield b"image", part.data
            else:
                yield b"image", part.file or b"".join(part.frames[:1])
        if message.role is Role.USER:
            return
