"""The OpenAPI document: GET /openapi.json."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gateway.access.auth import API_KEY
from gateway.http import rates
from gateway.http.bodies.encoding import ACCEPTED
from gateway.http.document.operation import JSON, Operation
from gateway.http.document.version import VERSION
from gateway.http.fields import HEADER
from protos.wire.channels import REQUEST_ID_KEY

Json = dict[str, Any]

_RATES = rates.DESCRIBED
_HEADERS: Mapping[str, Json] = {
    REQUEST_ID_KEY: {
        "description": "The request's id: the client's, or a new one. It is in every log.",
        "required": True,
        "schema": {"type": "string"},
    },
    HEADER: {
        "description": "Fields that nobody here knows, where these are no error.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which the same request may succeed.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "www-authenticate": {
        "description": "How a key is shown.",
        "required": True,
        "schema": {"const": "Bearer"},
    },
    "accept-encoding": {
        "description": "The encodings a body may have.",
        "required": True,
        "schema": {"const": ", ".join(ACCEPTED)},
    },
    **{
        name: {"description": text, "schema": {"type": kind}}
        for name, (text, kind) in _RATES.items()
    },
}
_OF_STATUS: Mapping[int, tuple[str, ...]] = {
    401: ("www-authenticate",),
    415: ("accept-encoding",),
    429: ("retry-after",),
    503: ("retry-after",),
}
_REFERENCE = "#/components/schemas/{model}"


def openapi(operations: Sequence[Operation], *, needs_key: bool = False) -> Json:
    """The document, OpenAPI 3.1, of these routes; `needs_key` is whether any key is configured."""
    models: set[type[BaseModel]] = set()
    for one in operations:
        models.update(filter(None, (one.body, one.answer, one.event, one.error, one.busy_answer)))
    mode: JsonSchemaMode = "validation"
    named = sorted(models, key=lambda model: model.__name__)
    references, definitions = models_json_schema(
        [(model, mode) for model in named], ref_template=_REFERENCE
    )
    schemas = {model.__name__: references[model, mode] for model in named}
    paths: dict[str, Json] = {}
    for one in operations:
        method = one.method or ("get" if one.body is None else "post")
        paths.setdefault(one.path, {})[method] = _operation(one, schemas, needs_key)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem",
            "version": VERSION,
            "description": "Conversations about images, as OpenAI's clients ask them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "headers": dict(_HEADERS),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": API_KEY},
            },
        },
    }


def _operation(one: Operation, schemas: dict[str, Json], needs_key: bool) -> Json:
    told = {kind: {"schema": schemas[one.answer.__name__]} for kind in one.answer_types}
    if one.event is not None:
        told[one.event_type] = {"schema": schemas[one.event.__name__]}
    without: list[Json] = [] if needs_key else [{}]
    ignored = () if one.body is None else (HEADER,)
    described: Json = {
        "summary": one.summary,
        "security": [{}] if one.is_open else [*without, {"key": []}, {"header": []}],
        "responses": {
            "200": {
                "description": one.answer.__doc__,
                "headers": _headers(one, ignored),
                "content": told,
            },
            **{
                str(status): {
                    "description": meaning,
                    "headers": _headers(one, _OF_STATUS.get(status, ())),
                    "content": {JSON: {"schema": schemas[one.error.__name__]}},
                }
                for status, meaning in one.failures()
            },
        },
    }
    if one.busy_answer is not None:
        described["responses"]["503"] = {
            "description": "Nothing is answered now",
            "headers": _headers(one),
            "content": {JSON: {"schema": schemas[one.busy_answer.__name__]}},
        }
    if one.body is not None:
        content = {JSON: {"schema": schemas[one.body.__name__]}}
        described["requestBody"] = {"required": True, "content": content}
    if "{name}" in one.path:
        described["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return described


def _headers(one: Operation, more: Iterable[str] = ()) -> Json:
    """References to the headers of an answer; `more` are those of its status."""
    names = (REQUEST_ID_KEY, *more, *(() if one.is_open else _RATES))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
