"""POST /v1/chat/completions: a body in, an answer out, whole or streamed."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.auth import bearer
from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerPiece,
    AnswerThought,
)
from gateway.http.bodies.reading import Bodies
from gateway.http.chat.completions import Completions, Json
from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import leave_out_of_parts, to_question
from gateway.http.disconnects import while_connected
from gateway.http.fields import UnknownFields
from gateway.http.streaming import Events, EventStream, chained, encoded, first_of
from gateway.request.job import Question
from gateway.service import ChatService


class ChatCompletions:
    """Serves the route; one object per process."""

    def __init__(
        self,
        service: ChatService,
        *,
        bodies: Bodies,
        token_bytes: TokenBytes,
        refuse_unknown: bool,
    ) -> None:
        self._service = service
        self._refuse_unknown = refuse_unknown
        self._bodies = bodies
        self._token_bytes = token_bytes

    async def serve(self, request: Request) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        async with AsyncExitStack() as held:
            name = request.state.request_id
            authorization = bearer(request.headers)
            opened = held.enter_context(
                self._service.request("http", request_id=name, authorization=authorization)
            )
            unknown = UnknownFields(refused=self._refuse_unknown)
            understand = partial(_understood, unknown=unknown)
            wanted, question = await self._bodies.read(request, opened, understand)
            events = opened.answer(question)
            await held.enter_async_context(aclosing(events))
            completions = Completions(
                request_id=name,
                model=self._service.served.name,
                fingerprint=self._service.served.fingerprint,
                token_bytes=self._token_bytes,
                with_logprobs=question.reporting.logprobs,
                with_usage=_wants_usage(wanted),
            )
            headers = unknown.headers(name)
            if not question.stream:
                whole = _whole(events, completions)
                return JSONResponse(await while_connected(request.receive, whole), headers=headers)
            first = await while_connected(request.receive, first_of(events))
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
