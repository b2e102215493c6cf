"""The thought before an answer, as models write it that think first: kept apart from the answer."""

from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.prompt.families.family import ThoughtTokens


class Thoughts:
    """Finds the thought of one answer by its tokens, never by text that reads like them.

    A thought begins with the answer, or has begun in the prompt already; there is one at most.
    Line breaks around it belong to its form and are no part of it.
    """

    def __init__(
        self,
        tokens: TokenBytes,
        around: ThoughtTokens | None,
        *,
        has_begun: bool,
        call_begin: int | None = None,
    ) -> None:
        """Starts before the first token.

        Args:
            tokens: What tokens are spelled like.
            around: The tokens around a thought; None where there is none.
            has_begun: Whether the prompt ends within a thought.
            call_begin: The token that a call begins with, which ends a thought that the
                answer began itself: the decoder holds what follows to the form of a call.
        """
        self._breaks_off = None if has_begun else call_begin
        self._around = around
        self._inside = around is not None and has_begun
        self._may_begin = around is not None
        # Stop strings are about the answer.
        self._detokenizer = Detokenizer(tokens)
        self._detokenizer.skip_newlines()
        self._held = ""  # line breaks that may be the last

    @property
    def are_over(self) -> bool:
        """Whether every token to come is the answer's."""
        return not (self._inside or self._may_begin)

    def push(self, token_id: int) -> str | None:
        """Text of the thought that is certain now, maybe empty; None for a token of the answer."""
        around, may_begin = self._around, self._may_begin
        self._may_begin = False
        if around is None:
            return None
        if may_begin and token_id == around.begin:
            self._inside = True
            return ""
        if token_id == self._breaks_off:
            self._inside = False
        if not self._inside:
            return None
        if token_id == around.end:
            self._inside = False
            return self._shown(self._detokenizer.finish())
        return self._shown(self._detokenizer.push([token_id]))

    def finish(self) -> str:
        """What was held back, where the answer ended within its thought."""
        if not self._inside:
            return ""
        self._inside = False
        return self._shown(self._detokenizer.finish())

    def _shown(self, text: str) -> str:
        pending = self._held + text
        shown = pending.rstrip("\n")
        self._held = pending[len(shown) :]
        return shown
