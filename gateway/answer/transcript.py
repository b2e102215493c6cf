"""An answer as it grows: how many tokens it has, and the text they become."""

from collections.abc import Sequence

from gateway.answer.detokenize import Detokenizer
from gateway.answer.events import AnswerText, OutputToken


class Transcript:
    """Turns the tokens of one answer into text that may be shown.

    Tokens are reported as they come, text when it is certain; so a report may run ahead of its
    text by the length of a stop string, and may end within the one that was found.
    """

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self.token_count = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer; nothing is added after it."""
        return self._detokenizer.stopped

    def add(self, tokens: Sequence[OutputToken]) -> AnswerText:
        """Takes new tokens, up to the one that completes a stop string."""
        texts, taken = [], []
        for token in tokens:
            texts.append(self._detokenizer.push([token.token_id]))
            taken.append(token)
            if self.stopped:
                break
        self.token_count += len(taken)
        return AnswerText(text="".join(texts), tokens=tuple(taken))

    def finish(self) -> AnswerText:
        """What was held back: half characters, and text that might have become a stop string."""
        return AnswerText(text=self._detokenizer.finish(), tokens=())
