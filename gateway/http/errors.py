"""The only place where errors take OpenAI's form: {"error": {message, type, param, code}}."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gateway.http.encoding import ACCEPTED
from protos.wire.errors import InvalidRequest, Reason, ServiceError

MAX_PARAM_CHARS = 200

# Statuses after which waiting helps, and how long where the error does not say.
_RETRY_AFTER_S: Mapping[int, float] = {429: 1.0, 503: 1.0}

# Objects whose keys the client chooses; an error names the object, not the key.
_FREE_KEYS = ("logit_bias", "metadata", "chat_template_kwargs")


def error_body(error: ServiceError) -> dict[str, Any]:
    """The JSON object of an error, in a response's body or a stream's last event."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind.type,
            "param": error.param,
            "code": error.kind.openai_code,
        }
    }


def error_response(error: ServiceError, *, status: int | None = None) -> JSONResponse:
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
    return JSONResponse(error_body(error), status_code=status, headers=headers)


def route_error(error: HTTPException) -> JSONResponse:
    """The response for a path or method that does not exist."""
    if error.status_code == 405:
        response = error_response(InvalidRequest("the method is not allowed here"), status=405)
        response.headers.update(error.headers or {})  # Allow
        return response
    nothing = ServiceError("no such path", reason=Reason.NOT_FOUND)
    return error_response(nothing, status=error.status_code)


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
