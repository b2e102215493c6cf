"""OpenAI's text_completion objects, built from the events of answers."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import AnswerEnd, AnswerEvent, AnswerPiece, OutputToken
from gateway.answer.spoken import spoken

Json = dict[str, Any]


class TextCompletions:
    """The objects of one answer; they share its id, time and model."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        fingerprint: str,
        token_bytes: TokenBytes,
        with_logprobs: bool,
    ) -> None:
        self._token_bytes = token_bytes
        self._with_logprobs = with_logprobs
        self._offsets = defaultdict[int, int](int)  # characters that a choice has, of its tokens
        self._shared: Json = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, events: Iterable[tuple[int, AnswerEvent]], choices_a_prompt: int) -> Json:
        """The whole answer, from everything each choice said."""
        pieces = defaultdict[int, list[AnswerPiece]](list)
        ends: dict[int, AnswerEnd] = {}
        for index, event in events:
            if isinstance(event, AnswerEnd):
                ends[index] = event
            else:
                pieces[index].append(event)
        choices = []
        for index in sorted(ends):
            said = spoken(pieces[index])
            choices.append(self._choice(index, said.text, said.tokens, ends[index]))
        return {**self._shared, "choices": choices, "usage": usage_of(ends, choices_a_prompt)}

    def chunk(self, index: int, event: AnswerEvent) -> Json:
        """Some of a choice, or its end."""
        if isinstance(event, AnswerEnd):
            choice = self._choice(index, "", (), event)
        else:
            said = spoken([event])
            choice = self._choice(index, said.text, said.tokens, None)
        return {**self._shared, "choices": [choice]}

    def usage(self, ends: dict[int, AnswerEnd], choices_a_prompt: int) -> Json:
        """The chunk after all choices, when the client asked for usage."""
        return {**self._shared, "choices": [], "usage": usage_of(ends, choices_a_prompt)}

    def _choice(
        self, index: int, text: str, tokens: Sequence[OutputToken], end: AnswerEnd | None
    ) -> Json:
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, tokens) if self._with_logprobs else None,
            "finish_reason": None if end is None else end.finish_reason.value,
        }

    def _logprobs(self, index: int, tokens: Sequence[OutputToken]) -> Json:
        """The four lists of this API; offsets count the characters of the tokens as they are."""
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(self._text(token.token_id))
        return {
            "tokens": [self._text(token.token_id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {self._text(top.token_id): top.logprob for top in token.top} for token in tokens
            ],
            "text_offset": offsets,
        }

    def _text(self, token_id: int) -> str:
        return self._token_bytes.of(token_id).decode("utf-8", errors="replace")


def usage_of(ends: dict[int, AnswerEnd], choices_a_prompt: int) -> Json:
    """Token counts of a request: each prompt once, however many choices it has."""
    firsts = [end for index, end in ends.items() if index % choices_a_prompt == 0]
    prompt = sum(end.prompt_tokens for end in firsts)
    completion = sum(end.completion_tokens for end in ends.values())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(end.cached_tokens for end in firsts)},
    }
