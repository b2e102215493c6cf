"""Tokens and their log-probabilities, as all APIs that have them write them down."""

from collections.abc import Sequence
from typing import Any

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import OutputToken


def logprobs(token_bytes: TokenBytes, tokens: Sequence[OutputToken]) -> list[dict[str, Any]]:
    """One object for each token: its text, exact bytes and natural log, and those beside it."""
    return [
        {
            **_token(token_bytes, token.token_id, token.logprob or 0.0),
            "top_logprobs": [_token(token_bytes, top.token_id, top.logprob) for top in token.top],
        }
        for token in tokens
    ]


def _token(token_bytes: TokenBytes, token_id: int, logprob: float) -> dict[str, Any]:
    data = token_bytes.of(token_id)
    # A token may hold half a character; its `bytes` are exact.
    text = data.decode("utf-8", errors="replace")
    return {"token": text, "logprob": logprob, "bytes": list(data)}
