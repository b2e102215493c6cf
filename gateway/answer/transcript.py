"""An answer as it grows: how many tokens it has, and the text they become."""

from collections.abc import Iterator, Sequence

from gateway.answer.detokenize import Detokenizer
from gateway.answer.events import AnswerText, AnswerThought, OutputToken
from gateway.answer.thoughts import Thoughts


class Transcript:
    """Turns the tokens of one answer into text that may be shown, its thought apart.

    Tokens are reported as they come, text when it is certain; so a report may run ahead of its
    text by the length of a stop string, and may end within the one that was found.
    """

    def __init__(self, detokenizer: Detokenizer, thoughts: Thoughts) -> None:
        self._detokenizer = detokenizer
        self._thoughts = thoughts
        self.token_count = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer; nothing is added after it."""
        return self._detokenizer.stopped

    def add(self, tokens: Sequence[OutputToken]) -> Iterator[AnswerThought | AnswerText]:
        """Takes new tokens, up to the one that completes a stop string."""
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
        if thinking:
            yield AnswerThought(text=thought, tokens=tuple(thinking))
        answered.extend(waiting)
        if answered:
            yield self._answer(answered)

    def finish(self) -> Iterator[AnswerThought | AnswerText]:
        """What was held back: half characters, and text that might have become a stop string."""
        for event in (
            AnswerThought(text=self._thoughts.finish(), tokens=()),
            AnswerText(text=self._detokenizer.finish(), tokens=()),
        ):
            if event.text:
                yield event

    def _answer(self, tokens: Sequence[OutputToken]) -> AnswerText:
        texts, taken = [], []
        for token in tokens:
            texts.append(self._detokenizer.push([token.token_id]))
            taken.append(token)
            if self.stopped:
                break
        self.token_count += len(taken)
        return AnswerText(text="".join(texts), tokens=tuple(taken))
