"""The only place where errors take a client's form, which follows from the path it asked.

OpenAI: {"error": {message, type, param, code}}. Anthropic: {"type": "error", "error": {type,
message}}. Ollama: {"error": message}.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gateway.http.bodies.encoding import ACCEPTED
from protos.wire.errors import InvalidRequest, Reason, ServiceError

MAX_PARAM_CHARS = 200

# Statuses after which waiting helps, and how long where the error does not say.
_RETRY_AFTER_S: Mapping[int, float] = {429: 1.0, 503: 1.0}

# Objects whose keys the client chooses; an error names the object, not the key.
_FREE_KEYS = ("logit_bias", "metadata", "chat_template_kwargs")

# Anthropic's types by status; of others 4xx are the request's fault, 5xx ours.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Api(StrEnum):
    """Whose words a path speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


def api_of(path: str) -> Api:
    """Whose words the answer to a path must have, also where there is nothing at that path."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Api.ANTHROPIC
    return Api.OLLAMA if path.startswith("/api/") else Api.OPENAI


def error_body(
    error: ServiceError, api: Api = Api.OPENAI, *, status: int | None = None
) -> dict[str, Any]:
    """The JSON object of an error, in a response's body or a stream's last event."""
    if api is Api.OLLAMA:
        return {"error": error.message}
    if api is Api.ANTHROPIC:
        status = status or error.kind.http_status
        fallback = "api_error" if status >= 500 else "invalid_request_error"
        kind = _ANTHROPIC_TYPES.get(status, fallback)
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {
        "error": {
            "message": error.message,
            "type": error.kind.type,
            "param": error.param,
            "code": error.kind.openai_code,
        }
    }


def error_response(
    error: ServiceError, api: Api = Api.OPENAI, *, status: int | None = None
) -> JSONResponse:
    """The whole response of an error; `status` overrides the table's for HTTP's own (405)."""
    status = status or error.kind.http_status
    headers = {}
    retry_after_s = error.retry_after_s or _RETRY_AFTER_S.get(status)
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 415:
        headers["Accept-Encoding"] = ", ".join(ACCEPTED)
    return JSONResponse(error_body(error, api, status=status), status_code=status, headers=headers)


def route_error(error: HTTPException, api: Api = Api.OPENAI) -> JSONResponse:
    """The response for a path or method that does not exist."""
    if error.status_code == 405:
        response = error_response(InvalidRequest("the method is not allowed here"), api, status=405)
        response.headers.update(error.headers or {})  # Allow
        return response
    nothing = ServiceError("no such path", reason=Reason.NOT_FOUND)
    return error_response(nothing, api, status=error.status_code)


def from_validation(error: ValidationError) -> InvalidRequest:
    """The first complaint about a request's types, by its path (`messages[0].role`)."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = field_path(first["loc"])
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"{path} is not allowed", param=path)
    if first["type"] == "missing":
        return InvalidRequest(f"{path} is missing", param=path)
    return InvalidRequest(f"{path}: {first['msg']}", param=path)


def field_path(location: Sequence[int | str]) -> str:
    """A field as clients write it: `messages[0].role`."""
    if location and location[0] in _FREE_KEYS:
        location = location[:1]
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")[:MAX_PARAM_CHARS] or "body"
