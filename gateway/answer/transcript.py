"""An answer as it grows: how many tokens it has, and the text and calls they become."""

from collections.abc import Iterator, Sequence

from gateway.answer.calls import Calls
from gateway.answer.detokenize import Detokenizer
from gateway.answer.events import AnswerPiece, AnswerText, AnswerThought, OutputToken
from gateway.answer.thoughts import Thoughts


class Transcript:
    """Turns the tokens of one answer into text that may be shown, its thought and calls apart.

    Tokens are reported as they come, text when it is certain; so a report may run ahead of its
    text by the length of a stop string, and may end within the one that was found.
    """

    def __init__(
        self, detokenizer: Detokenizer, thoughts: Thoughts, calls: Calls, *, min_tokens: int = 0
    ) -> None:
        """Starts before the first token; stop strings end nothing within `min_tokens` tokens."""
        self._detokenizer = detokenizer
        self._thoughts = thoughts
        self._calls = calls
        self._min_tokens = min_tokens
        self.token_count = 0
        self.thought_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer; nothing is added after it."""
        return self._detokenizer.stopped

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer."""
        return self._detokenizer.stop_string

    @property
    def call_count(self) -> int:
        """Calls that are complete."""
        return self._calls.count

    def add(self, tokens: Sequence[OutputToken]) -> Iterator[AnswerPiece]:
        """Takes new tokens, up to the one that completes a stop string."""
        if self._thoughts.are_over:
            yield from self._answer(tokens)
            return
        waiting = iter(tokens)
        answered: list[OutputToken] = []
        thought, thinking = "", []
        for token in waiting:
            text = self._thoughts.push(token.token_id)
            if text is None:
                answered.append(token)
                break
            thought += text
            thinking.append(token)
            self._detokenizer.skip_newlines()
        self.token_count += len(thinking)
        self.thought_tokens += len(thinking)
        if thinking:
            yield AnswerThought(text=thought, tokens=tuple(thinking))
        answered.extend(waiting)
        yield from self._answer(answered)

    def finish(self) -> Iterator[AnswerPiece]:
        """What was held back: half characters, and text that might have become a stop string."""
        thought = self._thoughts.finish()
        if thought:
            yield AnswerThought(text=thought, tokens=())
        if self._calls.count:
            self._detokenizer.drop_newlines()
        text = self._detokenizer.finish()
        if text:
            yield AnswerText(text=text, tokens=())

    def _answer(self, tokens: Sequence[OutputToken]) -> Iterator[AnswerPiece]:
        if not (self._calls.may_come or self._detokenizer.may_stop):
            if tokens:  # of which none needs a look of its own
                self.token_count += len(tokens)
                text = self._detokenizer.push([token.token_id for token in tokens])
                yield AnswerText(text=text, tokens=tuple(tokens))
            return
        text, taken = "", list[OutputToken]()
        for token in tokens:
            self.token_count += 1
            if self._calls.takes(token.token_id):
                text += self._detokenizer.pause()
                self._detokenizer.drop_newlines()
                if text or taken:
                    yield AnswerText(text=text, tokens=tuple(taken))
                text, taken = "", []
                yield self._calls.push(token)
                continue
            may_stop = self.token_count > self._min_tokens
            text += self._detokenizer.push([token.token_id], may_stop=may_stop)
            taken.append(token)
            if self.stopped:
                break
        if taken:
            yield AnswerText(text=text, tokens=tuple(taken))
