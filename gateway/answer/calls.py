"""The calls of tools in an answer: found by their tokens, kept apart from its text."""

import uuid

from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.answer.events import AnswerCall, AnswerText, OutputToken
from gateway.tools.format import CallFormat, CallReader


class Calls:
    """Reads the calls of one answer.

    A call begins with a token, never with text that reads like it. Stop strings are about text,
    and none is looked for in a call.
    """

    def __init__(self, tokens: TokenBytes, calls: CallFormat | None) -> None:
        """Starts before the first token; `calls` is None where no tool may be called."""
        self._tokens = tokens
        self._format = calls
        self._open: _OpenCall | None = None
        self.count = 0

    @property
    def may_come(self) -> bool:
        """Whether tools may be called at all."""
        return self._format is not None

    def takes(self, token_id: int) -> bool:
        """Whether a token belongs to a call: it begins one, or one is open."""
        return self._format is not None and (
            self._open is not None or token_id == self._format.begin
        )

    def push(self, token: OutputToken) -> AnswerCall | AnswerText:
        """Takes a token of a call; text comes of one that turned out to be none."""
        assert self._format is not None, "without a format no token is a call's"
        if self._open is None:
            self._open = _OpenCall(self._format.format.reader(), Detokenizer(self._tokens))
            return AnswerCall(index=self.count, arguments="", tokens=(token,))
        if token.token_id != self._format.end:
            return self._open.push(token, index=self.count)
        closed, self._open = self._open, None
        if closed.reader.is_complete:
            self.count += 1
            return AnswerCall(index=self.count - 1, arguments="", tokens=(token,))
        form = self._format.format
        return AnswerText(text=form.begin + closed.text + form.end, tokens=(token,))


class _OpenCall:
    """A call whose end has not come."""

    def __init__(self, reader: CallReader, detokenizer: Detokenizer) -> None:
        self.reader = reader
        self.text = ""
        self._detokenizer = detokenizer

    def push(self, token: OutputToken, *, index: int) -> AnswerCall:
        text = self._detokenizer.push([token.token_id])
        self.text += text
        piece = self.reader.push(text)
        return AnswerCall(
            index=index,
            call_id=None if piece.name is None else f"call_{uuid.uuid4().hex[:24]}",
            name=piece.name,
            arguments=piece.arguments,
            tokens=(token,),
        )
