"""The routes of the HTTP door, for the document; a test compares them with what is served."""

from collections.abc import Sequence

from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.completions.schemas import CompletionRequest
from gateway.http.document import answers
from gateway.http.document.apis import API_OPERATIONS
from gateway.http.document.operation import Operation
from gateway.http.tokens.schemas import DetokenizeRequest, TokenizeRequest

OPERATIONS: Sequence[Operation] = (
    Operation(
        path="/v1/chat/completions",
        summary="Answers a conversation about images",
        body=ChatCompletionRequest,
        answer=answers.ChatCompletion,
        event=answers.ChatCompletionChunk,
    ),
    Operation(
        path="/v1/completions",
        summary="Continues texts, without a chat template",
        body=CompletionRequest,
        answer=answers.TextCompletion,
        event=answers.TextCompletion,
    ),
    Operation(
        path="/tokenize",
        summary="Counts and tells the tokens of a text, or of a conversation with its images",
        body=TokenizeRequest,
        answer=answers.Tokenized,
    ),
    Operation(
        path="/detokenize",
        summary="Tells the text of tokens",
        body=DetokenizeRequest,
        answer=answers.Detokenized,
    ),
    *API_OPERATIONS,
    Operation(path="/v1/models", summary="Lists the model", answer=answers.ModelList),
    Operation(path="/v1/models/{name}", summary="Tells of the model", answer=answers.ModelCard),
    Operation(
        path="/health",
        summary="Tells of each tier",
        answer=answers.Health,
        is_open=True,
        busy_answer=answers.Health,
    ),
    Operation(
        path="/health/ready",
        summary="Says whether to send requests here",
        answer=answers.Health,
        is_open=True,
        busy_answer=answers.Health,
    ),
    Operation(
        path="/health/live",
        summary="Says that the process answers",
        answer=answers.Live,
        is_open=True,
    ),
    Operation(path="/version", summary="Tells the release", answer=answers.Version),
    Operation(
        path="/metrics",
        summary="Tells counts and times, for Prometheus",
        answer=answers.Metrics,
        answer_types=("text/plain", "application/openmetrics-text"),
    ),
    Operation(path="/openapi.json", summary="This document", answer=answers.Document),
)
