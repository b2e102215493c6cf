"""The routes of Responses, Messages and Ollama's API, for the document."""

from collections.abc import Sequence

from gateway.http.document import messages, ollama, responses
from gateway.http.document.operation import Operation
from gateway.http.messages.schemas import CreateMessage, PromptBody
from gateway.http.ollama.schemas import ChatBody, GenerateBody, ShowBody
from gateway.http.ollama.telling import CONTENT_TYPE
from gateway.http.responses.schemas import CreateResponse, InputBody

API_OPERATIONS: Sequence[Operation] = (
    Operation(
        path="/v1/responses",
        summary="Answers a conversation about images, as OpenAI's Responses",
        body=CreateResponse,
        answer=responses.ResponseObject,
        event=responses.ResponseEvent,
    ),
    Operation(
        path="/v1/responses/input_tokens",
        summary="Counts the tokens of a prompt",
        body=InputBody,
        answer=responses.InputTokens,
    ),
    Operation(
        path="/v1/responses/{name}",
        summary="Tells a kept answer",
        answer=responses.ResponseObject,
    ),
    Operation(
        path="/v1/responses/{name}",
        method="delete",
        summary="Keeps an answer no longer",
        answer=responses.Deleted,
    ),
    Operation(
        path="/v1/messages",
        summary="Answers a conversation about images, as Anthropic's Messages",
        body=CreateMessage,
        answer=messages.MessageObject,
        event=messages.MessageEvent,
        error=messages.MessagesError,
    ),
    Operation(
        path="/v1/messages/count_tokens",
        summary="Counts the tokens of a prompt",
        body=PromptBody,
        answer=messages.TokenCount,
        error=messages.MessagesError,
    ),
    Operation(
        path="/api/chat",
        summary="Answers a conversation about images, as Ollama does",
        body=ChatBody,
        answer=ollama.ChatAnswer,
        event=ollama.ChatLine,
        event_type=CONTENT_TYPE,
        error=ollama.OllamaError,
    ),
    Operation(
        path="/api/generate",
        summary="Answers a question about images, as Ollama does",
        body=GenerateBody,
        answer=ollama.GenerateAnswer,
        event=ollama.GenerateLine,
        event_type=CONTENT_TYPE,
        error=ollama.OllamaError,
    ),
    Operation(
        path="/api/show",
        summary="Tells of the model",
        body=ShowBody,
        answer=ollama.Shown,
        error=ollama.OllamaError,
    ),
    Operation(
        path="/api/tags",
        summary="Lists the model",
        answer=ollama.Tags,
        error=ollama.OllamaError,
    ),
    Operation(
        path="/api/version",
        summary="Tells which version of Ollama's API this is",
        answer=ollama.ApiVersion,
        error=ollama.OllamaError,
    ),
)
