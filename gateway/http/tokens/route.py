"""The two routes; neither needs a tier, and of images only the headers are read."""

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.answer.detokenize import TokenBytes
from gateway.http.bodies.reading import Requests
from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import conversation_of
from gateway.http.disconnects import while_connected
from gateway.http.fields import UnknownFields
from gateway.http.tokens.schemas import DetokenizeRequest, TokenizeRequest
from gateway.request.conversation import Conversation, PlainPrompt
from gateway.service import OpenRequest
from protos.wire.errors import InvalidRequest, Unsupported

Json = dict[str, Any]
Prompt = Conversation | PlainPrompt


class Tokens:
    """Serves both routes; one object per process."""

    def __init__(
        self,
        requests: Requests,
        *,
        token_bytes: TokenBytes,
        context_length: Callable[[], int],
        vocab_size: int,
    ) -> None:
        self._requests = requests
        self._token_bytes = token_bytes
        self._context_length = context_length
        self._vocab_size = vocab_size

    async def tokenize(self, request: Request) -> Response:
        """The ids of a text or of a whole prompt, with a placeholder for each token of an image.

        Raises:
            ServiceError: the request is refused.
        """
        with self._requests.opened(request) as opened:
            found, headers = await self._requests.read(request, opened, _understood)
            wanted, prompt = found
            ids = await while_connected(request.scope, _ids(opened, wanted.model, prompt))
        answer: Json = {
            "count": len(ids),
            "max_model_len": self._context_length(),
            "tokens": list(ids),
            "token_strs": None,
        }
        if wanted.return_token_strs:
            answer["token_strs"] = [self._text([token]) for token in ids]
        return JSONResponse(answer, headers=headers)

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids, special ones included.

        Raises:
            ServiceError: the request is refused.
        """
        with self._requests.opened(request) as opened:
            wanted, headers = await self._requests.read(request, opened, _ids_in)
            self._requests.service.served.check(wanted.model)
            for index, token in enumerate(wanted.tokens):
                if not 0 <= token < self._vocab_size:
                    raise InvalidRequest(
                        f"tokens[{index}] is {token}, expected 0 to {self._vocab_size - 1}",
                        param="tokens",
                    )
            text = self._text(wanted.tokens)
            opened.ended()
        return JSONResponse({"prompt": text}, headers=headers)

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._token_bytes.of, ids)).decode("utf-8", errors="replace")


def _understood(body: Json, unknown: UnknownFields) -> tuple[TokenizeRequest, Prompt]:
    """The request in a body; runs in a worker thread."""
    wanted = unknown.validated(TokenizeRequest, body)
    if (wanted.prompt is None) == (wanted.messages is None):
        raise InvalidRequest("expected either prompt or messages", param="prompt")
    if wanted.add_generation_prompt is False or wanted.continue_final_message:
        raise Unsupported(
            "add_generation_prompt must be true: every answer is a new turn",
            param="add_generation_prompt",
        )
    if wanted.prompt is not None:
        return wanted, PlainPrompt(text=wanted.prompt)
    shared = set(TokenizeRequest.model_fields) & set(ChatCompletionRequest.model_fields)
    chat = ChatCompletionRequest.model_construct(**{name: getattr(wanted, name) for name in shared})
    return wanted, conversation_of(chat)


def _ids_in(body: Json, unknown: UnknownFields) -> DetokenizeRequest:
    return unknown.validated(DetokenizeRequest, body)


async def _ids(opened: OpenRequest, model: str | None, prompt: Prompt) -> list[int]:
    if isinstance(prompt, PlainPrompt):
        return await opened.plain_ids(model, prompt)
    ids: list[int] = (await opened.prepare(model, prompt)).input_ids.tolist()
    return ids
