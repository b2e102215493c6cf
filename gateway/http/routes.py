"""The HTTP door: routes, and the errors no route answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.served import ServedModel
from gateway.http.document.openapi import openapi
from gateway.http.document.operations import OPERATIONS
from gateway.http.document.version import VERSION
from gateway.http.errors import api_of, error_response, route_error
from gateway.http.page import page_routes
from protos.wire.errors import InternalError, ServiceError


def http_app(
    *,
    asking: Sequence[Route],
    served: ServedModel,
    card: Callable[[], dict[str, Any]],
    health: Callable[[], dict[str, Any]],
    metrics: Callable[[str], tuple[bytes, str]],
    needs_key: Callable[[], bool],
) -> ASGIApp:
    """The ASGI application.

    Args:
        asking: The routes that ask the model something.
        served: The model.
        card: Its model object; what it takes may change as tiers come and go.
        health: The body of GET /health, whose `status` is ok or degraded where something is
            answered, and `ready` whether requests should be sent here.
        metrics: Prometheus' text and its media type, for an `Accept` header.
        needs_key: Whether any key is configured now, as the document says.
    """

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card()]})

    async def model(request: Request) -> Response:
        served.check(request.path_params["name"])
        return JSONResponse(card())

    async def health_report(_: Request) -> Response:
        report = health()
        answers = report["status"] in ("ok", "degraded")
        return JSONResponse(report, status_code=200 if answers else 503)

    async def ready(_: Request) -> Response:
        report = health()
        return JSONResponse(report, status_code=200 if report["ready"] else 503)

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def metrics_text(request: Request) -> Response:
        text, media_type = metrics(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    async def version(_: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def described(_: Request) -> Response:
        return JSONResponse(_document(needs_key()))

    app = Starlette(
        routes=[
            *asking,
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),  # names of models hold slashes
            Route("/metrics", metrics_text),
            Route("/health", health_report),
            Route("/health/ready", ready),
            Route("/health/live", live),
            Route("/version", version),
            Route("/openapi.json", described),
            *page_routes(),
        ],
        exception_handlers=ERROR_HANDLERS,
    )
    # A redirect leads wherever the client's proxy is not: to http from https, and without its key.
    app.router.redirect_slashes = False
    return _direct(asking, app)


def _direct(asking: Sequence[Route], rest: ASGIApp) -> ASGIApp:
    """Takes requests that ask the model straight to their route, and all others to an application.

    Each layer of Starlette's costs an answer some of its time, and each piece of a stream again.
    """
    posts = {
        route.path: route.endpoint
        for route in asking
        if route.methods == {"POST"} and not route.param_convertors
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = posts.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await rest(scope, receive, send)
            return
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
            await response(scope, receive, sending)
        except ServiceError as error:
            if has_begun:
                raise
            await (await _service_error(request, error))(scope, receive, send)
        except Exception as error:  # The HTTP edge, as below.
            if not has_begun:
                await (await _bug(request, error))(scope, receive, send)
            raise

    return app


@cache
def _document(needs_key: bool) -> Mapping[str, Any]:
    return openapi(OPERATIONS, needs_key=needs_key)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return error_response(error, api_of(request.scope["path"]))


async def _route_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return route_error(error, api_of(request.scope["path"]))


async def _bug(request: Request, _: Exception) -> Response:
    return error_response(InternalError("internal error"), api_of(request.scope["path"]))


# The last one is the HTTP edge: a bug is raised on and logged by the server, without its text here.
ERROR_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    ServiceError: _service_error,
    HTTPException: _route_error,
    Exception: _bug,
}
