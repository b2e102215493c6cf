"""The HTTP door: routes, and the errors no route answers."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from gateway.access.served import ServedModel
from gateway.http.chat.route import ChatCompletions
from gateway.http.errors import error_response, route_error
from protos.wire.errors import InternalError, ServiceError


def http_app(
    *,
    chat: ChatCompletions,
    served: ServedModel,
    health: Callable[[], dict[str, Any]],
) -> ASGIApp:
    """The ASGI application.

    Args:
        chat: Serves the one route that works.
        served: The model.
        health: The body of GET /health, whose `status` is ok, degraded, or not ready.
    """
    app = FastAPI(
        title="Tandem",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _add_error_handlers(app)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat_completions(request: Request) -> Response:
        return await chat.serve(request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [served.card()]}

    # Names of models hold slashes.
    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        served.check(name)
        return served.card()

    @app.get("/health", response_model=None)
    async def health_report() -> Response:
        report = health()
        ready = report["status"] in ("ok", "degraded")
        return JSONResponse(report, status_code=200 if ready else 503)

    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def service_error(_: Request, error: ServiceError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_exception(_: Request, error: HTTPException) -> Response:
        return route_error(error.status_code)

    # The HTTP edge: the error is raised on and logged by the server, without its text here.
    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return error_response(InternalError("internal error"))
