"""The routes of /v1/messages."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.http.door.door import Door
from gateway.http.door.telling import Asked, Counted
from gateway.http.door.typed import Given
from gateway.http.messages.schemas import CreateMessage, PromptBody
from gateway.http.messages.telling import MessageTelling
from gateway.http.messages.translate import to_conversation, to_question
from gateway.service import OpenRequest


class Messages:
    """Serves the routes; one object per process."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/messages", self._create, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
        ]

    async def _create(self, request: Request) -> Response:
        return await self._door.answer(request, self._asked)

    async def _count(self, request: Request) -> Response:
        return await self._door.count(request, _counted, lambda count: {"input_tokens": count})

    def _asked(self, given: Given, _: OpenRequest) -> Asked:
        body = given.validated(CreateMessage)
        conversation, names = to_conversation(body, given)
        display = None if body.thinking is None else body.thinking.display
        telling = MessageTelling(
            model=self._door.service.served.name,
            max_tokens=body.max_tokens,
            shows_thoughts=display != "omitted",
        )
        question = to_question(body, conversation)
        return Asked(question=question, telling=telling, names=names)


def _counted(given: Given, _: OpenRequest) -> Counted:
    body = given.validated(PromptBody)
    conversation, names = to_conversation(body, given)
    return Counted(model=body.model or "", conversation=conversation, names=names)
