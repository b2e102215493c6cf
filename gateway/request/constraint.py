"""What an answer must look like: OpenAI's `response_format`, and vLLM's `structured_outputs`.

The gateway only reads the request's form; the decoder compiles the grammar and judges it, before
anything is encoded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protos.wire.errors import InvalidRequest, Reason

# Keeps absurd grammars off the wire; the decoder's own limit is far lower, and a setting.
MAX_CONSTRAINT_BYTES = 512 * 1024

SCHEMA_FIELD = "response_format.json_schema.schema"


class ConstraintKind(StrEnum):
    """How a constraint is written; the values are the fields of the wire's `Constraint`."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "lark"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintSpec:
    """A formal language an answer is held to.

    Attributes:
        text: The schema's JSON, the pattern or the Lark grammar; empty for the other kinds.
        texts: The choices.
        field: Where the client put it, for errors.
    """

    kind: ConstraintKind
    text: str = ""
    texts: tuple[str, ...] = ()
    field: str

    def check(self) -> None:
        """Checks encoding and size.

        Raises:
            InvalidRequest: INVALID_SCHEMA, names the field.
        """
        texts = (self.text, *self.texts)
        for text in texts:
            _check_unicode(text, self.field)
        size = sum(len(text.encode()) for text in texts)
        if size > MAX_CONSTRAINT_BYTES:
            raise invalid(self.field, f"has {size} bytes, expected at most {MAX_CONSTRAINT_BYTES}")


def invalid(field: str, what: str) -> InvalidRequest:
    """The error of a constraint that cannot be used."""
    return InvalidRequest(f"{field} {what}", reason=Reason.INVALID_SCHEMA, param=field)


def from_response_format(kind: str, json_schema: Mapping[str, Any] | None) -> ConstraintSpec | None:
    """OpenAI's field. `strict` makes no difference: a schema always holds, exactly.

    Args:
        kind: "text", "json_object" or "json_schema".
        json_schema: The object of that name: a `schema`, and a name nobody here needs.

    Raises:
        InvalidRequest: INVALID_SCHEMA, there is no schema.
    """
    if kind == "text":
        return None
    if kind == "json_object":
        return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field="response_format")
    if json_schema is None or "schema" not in json_schema:
        raise invalid(SCHEMA_FIELD, "is missing")
    schema = json_schema["schema"]
    if not isinstance(schema, Mapping):
        raise invalid(SCHEMA_FIELD, "must be a JSON object")
    return ConstraintSpec(kind=ConstraintKind.JSON_SCHEMA, text=_json(schema), field=SCHEMA_FIELD)


def from_structured_outputs(given: Mapping[str, Any]) -> ConstraintSpec:
    """vLLM's field.

    Args:
        given: One of json (an object, or its text), regex, choice, grammar (Lark) and
            json_object, by name; of the right types.

    Raises:
        InvalidRequest: none or several are given, or one that says nothing.
    """
    field = "structured_outputs"
    if len(given) != 1:
        named = ", ".join(given) or "nothing"
        raise InvalidRequest(
            f"{field} holds {named}, expected exactly one of json, regex, choice, grammar and"
            " json_object",
            param=field,
        )
    ((name, value),) = given.items()
    field = f"{field}.{name}"
    if name == "json":
        text = value if isinstance(value, str) else _json(value)
        return ConstraintSpec(kind=ConstraintKind.JSON_SCHEMA, text=text, field=field)
    if name == "choice":
        return ConstraintSpec(kind=ConstraintKind.CHOICE, texts=tuple(value), field=field)
    if name == "json_object":
        if not value:
            raise invalid(field, "must be true where it is given")
        return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field=field)
    kind = ConstraintKind.REGEX if name == "regex" else ConstraintKind.LARK
    return ConstraintSpec(kind=kind, text=value, field=field)


def _json(schema: Mapping[str, Any]) -> str:
    """The schema's text; the order of properties is the client's, and so becomes the answer's."""
    return json.dumps(schema, ensure_ascii=False)


def _check_unicode(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, "holds text that is not valid Unicode (a lone surrogate)") from error
