"""A request from its body to its answer, whole or streamed; what is asked and told is the API's."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.answer.events import AnswerEvent
from gateway.http.bodies.reading import Requests
from gateway.http.disconnects import while_connected
from gateway.http.door.fitting import fitting
from gateway.http.door.places import naming, renamed
from gateway.http.door.telling import Asked, Counted, Json, Telling
from gateway.http.door.typed import Given
from gateway.http.fields import UnknownFields
from gateway.http.streaming import Events, EventStream, chained, first_of
from gateway.service import OpenRequest
from protos.wire.errors import InternalError, Reason, ServiceError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Door:
    """Serves requests of one answer each; one object per process, for all APIs but OpenAI's older
    ones.
    """

    def __init__(self, requests: Requests) -> None:
        self.service = requests.service
        self._requests = requests

    async def answer(
        self, request: Request, read: Callable[[Given, OpenRequest], Asked | Json]
    ) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Args:
            request: Its body is not read yet.
            read: Makes a question of the body's JSON object, or an answer that needs no model;
                runs in a worker thread.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        async with AsyncExitStack() as held:
            opened = held.enter_context(self._requests.opened(request))
            asked, headers = await self._read(request, opened, read)
            if not isinstance(asked, Asked):
                opened.ended()
                return JSONResponse(asked, headers=headers)
            question = asked.question
            if asked.may_lose_turns:
                events = fitting(opened, question, asked.names)
            else:
                events = opened.answer(question)
            await held.enter_async_context(aclosing(events))
            with naming(asked.names):
                if not question.stream:
                    whole = await while_connected(request.scope, _whole(events, asked.telling))
                    return JSONResponse(whole, headers=headers)
                first = await while_connected(request.scope, first_of(events))
            return EventStream(
                _pieces(chained(first, events), asked, opened),
                held.pop_all(),
                headers=headers,
                content_type=asked.telling.content_type,
            )

    async def count(
        self,
        request: Request,
        read: Callable[[Given, OpenRequest], Counted],
        told: Callable[[int], Json],
    ) -> Response:
        """Counts the tokens of a request's prompt, its images included; nothing is encoded.

        Args:
            request: Its body is not read yet.
            read: Makes a conversation of the body's JSON object; runs in a worker thread.
            told: The answer's body.

        Raises:
            ServiceError: the request is refused.
        """
        with self._requests.opened(request) as opened:
            counted, headers = await self._read(request, opened, read)
            with naming(counted.names):
                counting = opened.prepare(counted.model, counted.conversation)
                prompt = await while_connected(request.scope, counting)
            return JSONResponse(told(len(prompt.input_ids)), headers=headers)

    async def _read(
        self, request: Request, opened: OpenRequest, read: Callable[[Given, OpenRequest], T]
    ) -> tuple[T, dict[str, str]]:
        """What a body means, and the answer's headers about it."""

        def understood(body: Json, unknown: UnknownFields) -> T:
            return read(Given(body=body, unknown=unknown), opened)

        return await self._requests.read(request, opened, understood)


async def _whole(events: Events, telling: Telling) -> Json:
    async for _, event in events:
        for _said in telling.add(event):
            pass
    return telling.whole()


async def _pieces(
    events: AsyncIterator[tuple[int, AnswerEvent]], asked: Asked, opened: OpenRequest
) -> AsyncGenerator[bytes, None]:
    """What is sent of a streamed answer.

    A failure ends it in the API's own way of saying so, so that half an answer can never pass for
    a whole one.
    """
    telling = asked.telling
    try:
        for said in telling.begin():
            yield telling.encode(said)
        async for _, event in events:
            for said in telling.add(event):
                yield telling.encode(said)
    except ServiceError as error:
        opened.failed(error.reason)
        for said in telling.failed(renamed(error, asked.names)):
            yield telling.encode(said)
    except Exception:  # The HTTP edge: a bug in one answer must not show its text to the client.
        logger.exception("unhandled error in a stream")
        opened.failed(Reason.INTERNAL)
        for said in telling.failed(InternalError("internal error")):
            yield telling.encode(said)
    else:
        if telling.last:
            yield telling.last
