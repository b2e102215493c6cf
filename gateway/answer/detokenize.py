"""Token ids to text, piece by piece: never half a character, never past a stop string."""

import codecs
from collections.abc import Iterable, Sequence

from gateway.prompt.byte_level import byte_letters
from gateway.prompt.tokenizer import PromptTokenizer


class TokenBytes:
    """The bytes each token id stands for; filled as ids are seen, shared by all answers."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._letters = byte_letters()
        self._tokenizer = tokenizer
        self._added = {token.token_id: token.content for token in tokenizer.added}
        self._special = tokenizer.special_ids
        self._known: dict[int, bytes] = {}

    def of(self, token_id: int) -> bytes:
        """The bytes of any token; empty for an id outside the vocabulary (padding rows)."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._look_up(token_id)
        return known

    def shown(self, token_id: int) -> bytes:
        """The bytes a token adds to an answer; empty for special tokens."""
        return b"" if token_id in self._special else self.of(token_id)

    def _look_up(self, token_id: int) -> bytes:
        spelling = self._added.get(token_id) or self._tokenizer.token_of(token_id) or ""
        letters = self._letters
        if all(letter in letters for letter in spelling):
            return bytes(letters[letter] for letter in spelling)
        return spelling.encode()


class Detokenizer:
    """Text of one answer, as its tokens come.

    A token may end within a character, and a stop string may span tokens: both are held back
    until the next tokens, or the end, decide. The pieces together equal transformers' `decode`
    up to the first stop string, wherever the tokens are cut.

    **Source**: transformers `decode(ids, skip_special_tokens=True,
    clean_up_tokenization_spaces=False)`; parity in tests/parity/test_detokenize.py.
    """

    def __init__(
        self,
        tokens: TokenBytes,
        stop_strings: Sequence[str] = (),
        *,
        holds_newlines: bool = False,
    ) -> None:
        """Starts before the first token.

        Args:
            tokens: What tokens are spelled like.
            stop_strings: What ends the text.
            holds_newlines: Line breaks wait for what follows, which may make them no part of the
                text; see `drop_newlines`.
        """
        self._tokens = tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopStrings(stop_strings)
        self._skipping = False
        self._holding = holds_newlines
        self._held = ""  # line breaks that may be the last

    @property
    def stopped(self) -> bool:
        """A stop string was found; later tokens add nothing."""
        return self._stops.found is not None

    @property
    def may_stop(self) -> bool:
        """Whether there are stop strings."""
        return self._stops.are_some

    @property
    def stop_string(self) -> str | None:
        """The stop string that was found."""
        return self._stops.found

    def skip_newlines(self) -> None:
        """Leaves out line breaks until other text comes; stop strings do not see them."""
        self._skipping = True

    def drop_newlines(self) -> None:
        """Leaves out the line breaks that wait."""
        self._held = ""

    def push(self, token_ids: Iterable[int], *, may_stop: bool = True) -> str:
        """Text that is certain after these tokens; may be empty.

        Args:
            token_ids: New tokens.
            may_stop: Whether a stop string that ends in them ends the text.
        """
        data = b"".join(map(self._tokens.shown, token_ids))
        text = self._behind_newlines(self._utf8.decode(data))
        return self._before_newlines(self._stops.push(text, may_stop=may_stop))

    def pause(self) -> str:
        """The rest up to here but for line breaks that wait; something else follows than text."""
        text = self._stops.push(self._behind_newlines(self._utf8.decode(b"", final=True)))
        return self._before_newlines(text + self._stops.finish())

    def finish(self) -> str:
        """The rest: what was held back, an unfinished character as U+FFFD."""
        text = self.pause() + self._held
        self._held = ""
        return text

    def _behind_newlines(self, text: str) -> str:
        if self._skipping:
            text = text.lstrip("\n")
            self._skipping = not text
        return text

    def _before_newlines(self, text: str) -> str:
        if not self._holding:
            return text
        pending = self._held + text
        shown = pending if self.stopped else pending.rstrip("\n")
        self._held = pending[len(shown) :]
        return shown


class StopStrings:
    """Cuts a text before the first stop string to be complete, the longest one of these.

    Only the longest tail that may yet grow into a stop string is held back.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(string for string in strings if string)
        self._heads = {
            string[:length] for string in self._strings for length in range(1, len(string))
        }
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.are_some = bool(self._strings)
        self.found: str | None = None

    def push(self, text: str, *, may_stop: bool = True) -> str:
        """What of the held tail and `text` is certain to be shown."""
        if not self.are_some:
            return text
        if self.found is not None:
            return ""
        pending = self._held + text
        match = self._first_match(pending) if may_stop else None
        if match is not None:
            (start, self.found), self._held = match, ""
            return pending[:start]
        keep = self._tail_length(pending)
        cut = len(pending) - keep
        self._held = pending[cut:]
        return pending[:cut]

    def finish(self) -> str:
        """What is still held; the text is over."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """The stop string that ends first, of several the longest, and where it begins."""
        hits = [
            (start + len(string), start, string)
            for string in self._strings
            if (start := text.find(string)) >= 0
        ]
        return min(hits)[1:] if hits else None

    def _tail_length(self, text: str) -> int:
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-length:] in self._heads:
                return length
        return 0
