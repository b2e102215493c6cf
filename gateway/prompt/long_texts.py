"""Long texts: how few tokens they can be, and where they may be cut without changing a token."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gateway.prompt.byte_level import byte_letters

PIECE_CHARS = 32 * 1024

# A character is at most 4 bytes, NFC makes of them at most three times as many, and no token is
# less than a byte.
MOST_TOKENS_PER_CHAR = 12

# The splitting rule of Qwen2's and Qwen3's tokenizers.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Behind a letter or digit and before a blank, a line break or an ideographic full stop or comma
# that rule always splits: nothing it knows holds both, and it never looks back. The characters
# behind are unchanged by NFC whatever stands before them. Only letters of which every version of
# Unicode knows that they are some.
_CUT = re.compile("[0-9A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5](?=[ \n\u3002\uff0c])")


def is_known_form(raw: Mapping[str, Any]) -> bool:
    """Whether a parsed tokenizer.json normalizes and splits as `cut` and `LeastTokens` assume."""
    before = raw.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers") or [{}]
    split = {key: steps[0].get(key) for key in ("type", "pattern", "behavior", "invert")}
    expected = {
        "type": "Split",
        "pattern": {"Regex": _SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    kinds = [step.get("type") for step in steps]
    return (
        raw.get("normalizer") == {"type": "NFC"}
        and kinds == ["Split", "ByteLevel"]
        and split == expected
        and not steps[1].get("use_regex")
        and not steps[1].get("add_prefix_space")
    )


def cut(text: str, piece_chars: int = PIECE_CHARS) -> Iterator[str]:
    """Pieces whose tokens, one after another, are the tokens of the text.

    Args:
        text: Plain text, before it is normalized.
        piece_chars: Length from which on a piece ends at the next place that is certain; a text
            without one stays whole.
    """
    start = 0
    while len(text) - start > piece_chars:
        # The look-ahead leaves the blank to the next piece.
        place = _CUT.search(text, start + piece_chars - 1)
        if place is None:
            break
        yield text[start : place.end()]
        start = place.end()
    yield text[start:]


class LeastTokens:
    """How few tokens a text can be.

    A token of n bytes has only bytes that some token of n or more holds. So each byte is at
    least one part in the longest token that holds it, and the parts of a text add up to no more
    than its tokens. One token of 128 blanks then makes blanks cheap, but no letter.
    """

    def __init__(self, vocab: Iterable[str]) -> None:
        """Reads a byte-level vocabulary."""
        longest: dict[str, int] = {}
        for token in sorted(vocab, key=len):
            longest.update(dict.fromkeys(token, len(token)))
        # A byte of which no token tells is in no text either; it counts nothing.
        self._parts = np.zeros(256)
        for letter, byte in byte_letters().items():
            if letter in longest:
                self._parts[byte] = 1 / longest[letter]

    def of(self, texts: Iterable[str]) -> int:
        """A number of tokens that the texts, each between added tokens, cannot be below."""
        counts = np.zeros(256, dtype=np.int64)
        for text in texts:
            data = unicodedata.normalize("NFC", _behind_accents(text)).encode()
            counts += np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
        return int(counts @ self._parts - 1e-6)


def _behind_accents(text: str) -> str:
    """A text from its first ASCII character on.

    An accent at its very start may join what stands before, where that is not an added token but
    a client's text that reads like one.
    """
    if text[:1].isascii():
        return text
    first = re.search(r"[\x00-\x7f]", text)
    return "" if first is None else text[first.start() :]
