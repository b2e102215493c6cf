"""OpenAI's response objects, built from the events of an answer."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerPiece,
    AnswerText,
    AnswerThought,
    OutputToken,
)
from gateway.answer.spoken import Spoken, spoken

Json = dict[str, Any]


class Completions:
    """The objects of one answer; they share its id, time and model."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        fingerprint: str,
        token_bytes: TokenBytes,
        with_logprobs: bool,
        with_usage: bool,
    ) -> None:
        self._token_bytes = token_bytes
        self._with_logprobs = with_logprobs
        self._shared: Json = {
            "id": f"chatcmpl-{request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        # A stream with usage has it in its last chunk, and says so in all others.
        self._not_yet: Json = {"usage": None} if with_usage else {}

    def whole(
        self,
        pieces: Mapping[int, Sequence[AnswerPiece]],
        ends: Mapping[int, AnswerEnd],
    ) -> Json:
        """A chat.completion, from everything each choice thought, said and called."""
        choices = []
        for index in sorted(ends):
            said = spoken(pieces[index])
            choices.append(
                {
                    "index": index,
                    "message": _message(said),
                    "logprobs": self._logprobs(said.tokens),
                    "finish_reason": ends[index].finish_reason.value,
                }
            )
        usage = usage_of(list(ends.values()))
        return {**self._shared, "object": "chat.completion", "choices": choices, "usage": usage}

    def role(self, index: int) -> Json:
        """The first chunk of a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def text(self, index: int, text: AnswerText) -> Json:
        """Some text of a choice."""
        return self._chunk(index, {"content": text.text}, logprobs=self._logprobs(text.tokens))

    def thought(self, index: int, thought: AnswerThought) -> Json:
        """Some of a choice's thought; `logprobs` are of the answer alone."""
        return self._chunk(index, _reasoning(thought.text))

    def call(self, index: int, call: AnswerCall) -> Iterator[Json]:
        """Some of a choice's call: id and name alone first, then the arguments as they come."""
        if call.name is not None:
            function: Json = {"name": call.name, "arguments": ""}
            first = {"id": call.call_id, "type": "function", "function": function}
            yield self._chunk(index, {"tool_calls": [{"index": call.index, **first}]})
        if call.arguments:
            function = {"arguments": call.arguments}
            yield self._chunk(index, {"tool_calls": [{"index": call.index, "function": function}]})

    def end(self, index: int, end: AnswerEnd) -> Json:
        """The last chunk of a choice."""
        return self._chunk(index, {}, finish_reason=end.finish_reason.value)

    def usage(self, ends: Sequence[AnswerEnd]) -> Json:
        """The chunk after all choices, when the client asked for usage."""
        return {
            **self._shared,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_of(ends),
        }

    def _chunk(
        self,
        index: int,
        delta: Json,
        *,
        logprobs: Json | None = None,
        finish_reason: str | None = None,
    ) -> Json:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {
            **self._shared,
            "object": "chat.completion.chunk",
            "choices": [choice],
            **self._not_yet,
        }

    def _logprobs(self, tokens: Sequence[OutputToken]) -> Json | None:
        if not self._with_logprobs:
            return None
        entries = [
            {
                **self._token(token.token_id, token.logprob or 0.0),
                "top_logprobs": [self._token(top.token_id, top.logprob) for top in token.top],
            }
            for token in tokens
        ]
        return {"content": entries, "refusal": None}

    def _token(self, token_id: int, logprob: float) -> Json:
        data = self._token_bytes.of(token_id)
        # A token may hold half a character; its `bytes` are exact.
        return {
            "token": data.decode("utf-8", errors="replace"),
            "logprob": logprob,
            "bytes": list(data),
        }


def _message(said: Spoken) -> Json:
    calls = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in said.calls
    ]
    return {
        "role": "assistant",
        "content": None if calls and not said.text else said.text,
        "refusal": None,
        **_reasoning(said.thought),
        **({"tool_calls": calls} if calls else {}),
    }


def _reasoning(text: str) -> Json:
    """A thought by both names that clients know; no field where there is none."""
    return {"reasoning": text, "reasoning_content": text} if text else {}


def usage_of(ends: Sequence[AnswerEnd]) -> Json:
    """Token counts of a request; its choices share one prompt."""
    prompt = ends[0].prompt_tokens
    completion = sum(end.completion_tokens for end in ends)
    thoughts = sum(end.thought_tokens for end in ends)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": ends[0].cached_tokens, **_visual(ends[0])},
        **({"completion_tokens_details": {"reasoning_tokens": thoughts}} if thoughts else {}),
    }


def _visual(end: AnswerEnd) -> Json:
    """Placeholders among the prompt's tokens, where it has any."""
    counts = {"image_tokens": end.image_tokens, "video_tokens": end.video_tokens}
    return {name: count for name, count in counts.items() if count}
