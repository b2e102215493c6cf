"""What became of one request of a load."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request as the client saw it; moments in seconds of one clock.

    Attributes:
        moments: Of each piece of the answer that had text in it.
        ended_s: When the answer had ended, or had failed.
        prompt_tokens, completion_tokens: As the endpoint counted them; None where it did not.
        error: Its kind, such as "HTTP 429" or "timeout"; None for a whole answer.
    """

    moments: tuple[float, ...]
    ended_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None

    @property
    def tokens(self) -> int:
        """As the endpoint counted, else one for each piece."""
        return len(self.moments) if self.completion_tokens is None else self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An answer with when it was due.

    Times count from `due_s`, not from `sent_s`: a user who had to wait until a busy client sent
    the question has waited, and leaving that out makes a slow server look fast.
    """

    due_s: float
    sent_s: float
    answer: Answer

    @property
    def lag_s(self) -> float:
        """How late the client sent it."""
        return self.sent_s - self.due_s

    @property
    def ttft_s(self) -> float | None:
        """Until the first text; None for an answer without any."""
        return self.answer.moments[0] - self.due_s if self.answer.moments else None

    @property
    def e2e_s(self) -> float:
        """Until the end."""
        return self.answer.ended_s - self.due_s

    @property
    def gaps_s(self) -> list[float]:
        """Between pieces of text that follow each other."""
        moments = self.answer.moments
        return [later - sooner for sooner, later in zip(moments, moments[1:], strict=False)]

    @property
    def per_token_s(self) -> float | None:
        """Mean time of a token after the first; None where there is one at most."""
        if self.answer.tokens < 2 or len(self.answer.moments) < 2:
            return None
        return (self.answer.moments[-1] - self.answer.moments[0]) / (self.answer.tokens - 1)

    def meets(self, *, ttft_ms: float | None, itl_ms: float | None) -> bool:
        """Whether it is a whole answer within the targets; None: no target."""
        if self.answer.error is not None:
            return False
        first, token = self.ttft_s, self.per_token_s
        return (ttft_ms is None or (first is not None and first * 1e3 <= ttft_ms)) and (
            itl_ms is None or token is None or token * 1e3 <= itl_ms
        )
