"""A small endpoint of OpenAI's chat API: what it answers, and how, is a test's to say."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Reply = Callable[[web.Request, web.StreamResponse], Any]


def event(delta: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """One `data:` line of a stream."""
    choices = [] if delta is None else [{"delta": delta, **fields.pop("choice", {})}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


END = event({}, choice={"finish_reason": "stop"})
DONE = b"data: [DONE]\n\n"


class Endpoint:
    """Streams `pieces` with `pause_s` before each; counts how many are at work at once."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = [event({"content": word}) for word in ("a", "b", "c")]
        self.pause_s = 0.0
        self.tail = [END, DONE]
        self.status = 200
        self.refuse_after: int | None = None  # bodies; later ones get `status`
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.at_once = self.most_at_once = 0
        self.hold: asyncio.Event | None = None  # of answers; those behind `hold_after` wait for it
        self.hold_after = 0
        self.held = asyncio.Semaphore(0)  # released for each that waits

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "small"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        if self.refuse_after is not None and len(self.bodies) > self.refuse_after:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for piece in self.pieces:
                await asyncio.sleep(self.pause_s)
                await response.write(piece)
            if self.hold is not None and len(self.bodies) > self.hold_after:
                self.held.release()
                await self.hold.wait()
            for piece in self.tail:
                await response.write(piece)
        finally:
            self.at_once -= 1
        return response


@asynccontextmanager
async def serving(endpoint: Endpoint) -> AsyncIterator[str]:
    """Its base URL."""
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_get("/v1/models", endpoint.models)
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
