"""POST /v1/chat/completions: a body in, an answer out, whole or streamed."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerPiece,
    AnswerThought,
)
from gateway.http.bodies.reading import Requests
from gateway.http.chat.completions import Completions, Json
from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import leave_out_of_parts, to_question
from gateway.http.disconnects import while_connected
from gateway.http.fields import UnknownFields
from gateway.http.streaming import Events, EventStream, chained, encoded, first_of
from gateway.request.job import Question


class ChatCompletions:
    """Serves the route; one object per process."""

    def __init__(self, requests: Requests, *, token_bytes: TokenBytes) -> None:
        self._requests = requests
        self._served = requests.service.served
        self._token_bytes = token_bytes

    async def serve(self, request: Request) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        async with AsyncExitStack() as held:
            opened = held.enter_context(self._requests.opened(request))
            found, headers = await self._requests.read(request, opened, _understood)
            wanted, question = found
            events = opened.answer(question)
            await held.enter_async_context(aclosing(events))
            completions = Completions(
                request_id=request.state.request_id,
                model=self._served.name,
                fingerprint=self._served.fingerprint,
                token_bytes=self._token_bytes,
                with_logprobs=question.reporting.logprobs,
                with_usage=_wants_usage(wanted),
            )
            if not question.stream:
                whole = _whole(events, completions)
                return JSONResponse(await while_connected(request.scope, whole), headers=headers)
            first = await while_connected(request.scope, first_of(events))
            chunks = _chunks(chained(first, events), completions, wanted)
            return EventStream(encoded(chunks, opened), held.pop_all(), headers=headers)


def _understood(body: Json, unknown: UnknownFields) -> tuple[ChatCompletionRequest, Question]:
    """The request in a body; runs in a worker thread."""
    wanted = unknown.validated(ChatCompletionRequest, body)
    if not unknown.refused:
        leave_out_of_parts(wanted, unknown)
    return wanted, to_question(wanted)


async def _whole(events: Events, completions: Completions) -> Json:
    pieces: defaultdict[int, list[AnswerPiece]] = defaultdict(list)
    ends: dict[int, AnswerEnd] = {}
    async for index, event in events:
        if isinstance(event, AnswerEnd):
            ends[index] = event
        else:
            pieces[index].append(event)
    return completions.whole(pieces, ends)


async def _chunks(
    events: AsyncIterator[tuple[int, AnswerEvent]],
    completions: Completions,
    wanted: ChatCompletionRequest,
) -> AsyncIterator[Json]:
    begun: set[int] = set()
    ends: list[AnswerEnd] = []
    async for index, event in events:
        if index not in begun:
            begun.add(index)
            yield completions.role(index)
        if isinstance(event, AnswerEnd):
            ends.append(event)
            yield completions.end(index, event)
        elif isinstance(event, AnswerThought):
            if event.text:
                yield completions.thought(index, event)
        elif isinstance(event, AnswerCall):
            for chunk in completions.call(index, event):
                yield chunk
        elif event.text or wanted.logprobs:
            yield completions.text(index, event)
    if _wants_usage(wanted):
        yield completions.usage(ends)


def _wants_usage(wanted: ChatCompletionRequest) -> bool:
    return bool(wanted.stream_options is not None and wanted.stream_options.include_usage)
