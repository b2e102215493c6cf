"""POST /v1/completions: texts in, their continuations out, whole or streamed."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import AnswerEnd, AnswerEvent
from gateway.answer.merge import merged
from gateway.http.bodies.reading import Requests
from gateway.http.completions.schemas import CompletionRequest
from gateway.http.completions.telling import Json, TextCompletions
from gateway.http.completions.translate import to_questions
from gateway.http.disconnects import while_connected
from gateway.http.fields import UnknownFields
from gateway.http.streaming import Events, EventStream, chained, encoded, first_of
from gateway.request.job import Question
from gateway.service import OpenRequest


class PlainCompletions:
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
            wanted, questions = found
            events = _answers(opened, questions)
            await held.enter_async_context(aclosing(events))
            telling = TextCompletions(
                request_id=request.state.request_id,
                model=self._served.name,
                fingerprint=self._served.fingerprint,
                token_bytes=self._token_bytes,
                with_logprobs=wanted.logprobs is not None,
            )
            count = questions[0].choice_count
            if not wanted.stream:
                all_events = await while_connected(request.scope, _all(events))
                return JSONResponse(telling.whole(all_events, count), headers=headers)
            first = await while_connected(request.scope, first_of(events))
            options = wanted.stream_options
            with_usage = bool(options is not None and options.include_usage)
            chunks = _chunks(chained(first, events), telling, count if with_usage else None)
            return EventStream(encoded(chunks, opened), held.pop_all(), headers=headers)


def _understood(body: Json, unknown: UnknownFields) -> tuple[CompletionRequest, list[Question]]:
    """The request in a body; runs in a worker thread."""
    wanted = unknown.validated(CompletionRequest, body)
    return wanted, to_questions(wanted)


async def _answers(opened: OpenRequest, questions: Sequence[Question]) -> Events:
    """The events of all prompts' answers, choices counted through."""
    answers = [_placed(opened, question) for question in questions]
    async with aclosing(merged(answers)) as events:
        async for _, event in events:
            yield event


async def _placed(
    opened: OpenRequest, question: Question
) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
    async with aclosing(opened.answer(question)) as events:
        async for index, event in events:
            yield question.first_choice + index, event


async def _all(events: Events) -> list[tuple[int, AnswerEvent]]:
    return [event async for event in events]


async def _chunks(
    events: AsyncIterator[tuple[int, AnswerEvent]],
    telling: TextCompletions,
    usage_of_choices: int | None,
) -> AsyncIterator[Json]:
    """What is sent; usage last, where the number of a prompt's choices is given."""
    ends: dict[int, AnswerEnd] = {}
    async for index, event in events:
        if isinstance(event, AnswerEnd):
            ends[index] = event
        yield telling.chunk(index, event)
    if usage_of_choices is not None:
        yield telling.usage(ends, usage_of_choices)
