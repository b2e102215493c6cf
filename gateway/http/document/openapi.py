"""The OpenAPI document: GET /openapi.json."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gateway.access.auth import API_KEY
from gateway.http import rates
from gateway.http.document.operation import Operation
from gateway.http.document.version import VERSION

Json = dict[str, Any]

PATH = "/openapi.json"
_RATES: Json = {
    name: {"description": text, "schema": {"type": kind}}
    for name, (text, kind) in rates.DESCRIBED.items()
}
_RETRY: Json = {
    "retry-after": {
        "description": "Seconds after which the same request may succeed, with 429 and 503.",
        "schema": {"type": "integer"},
    }
}
_REFERENCE = "#/components/schemas/{model}"


def openapi(operations: Sequence[Operation]) -> Json:
    """The document, OpenAPI 3.1, of these routes."""
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
        paths.setdefault(one.path, {})[method] = _operation(one, schemas)
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
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": API_KEY},
            },
        },
    }


def _operation(one: Operation, schemas: dict[str, Json]) -> Json:
    told = {"application/json": {"schema": schemas[one.answer.__name__]}}
    if one.event is not None:
        told[one.event_type] = {"schema": schemas[one.event.__name__]}
    described: Json = {
        "summary": one.summary,
        "security": [{}] if one.is_open else [{}, {"key": []}, {"header": []}],
        "responses": {
            "200": {"description": one.answer.__doc__, "content": told},
            "default": _answer(schemas[one.error.__name__], "A failure"),
        },
    }
    if not one.is_open:
        described["responses"]["200"]["headers"] = _RATES
        described["responses"]["default"]["headers"] = {**_RATES, **_RETRY}
    if one.busy_answer is not None:
        described["responses"]["503"] = _answer(
            schemas[one.busy_answer.__name__], "Nothing is answered now"
        )
    if one.body is not None:
        content = {"application/json": {"schema": schemas[one.body.__name__]}}
        described["requestBody"] = {"required": True, "content": content}
    if "{name}" in one.path:
        described["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return described


def _answer(schema: Json, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
