"""What an answer must look like: OpenAI's `response_format`, and vLLM's `structured_outputs`.

The gateway only reads the request's form; the decoder compiles the grammar and judges it, before
anything is encoded.
"""

import dataclasses
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
        whitespace_pattern: What may stand between the tokens of JSON; None for the usual blanks.
        disable_any_whitespace: Nothing stands there.
        token_ids: Added tokens that a Lark grammar may use, as its rules `token_0` and so on; from
            this server's own grammars alone.
        field: Where the client put it, for errors.
    """

    kind: ConstraintKind
    text: str = ""
    texts: tuple[str, ...] = ()
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    token_ids: tuple[int, ...] = ()
    field: str

    def check(self) -> None:
        """Checks encoding and size.

        Raises:
            InvalidRequest: INVALID_SCHEMA, names the field.
        """
        texts = (self.text, *self.texts, self.whitespace_pattern or "")
        for text in texts:
            _check_unicode(text, self.field)
        size = sum(len(text.encode()) for text in texts)
        if size > MAX_CONSTRAINT_BYTES:
            raise invalid(self.field, f"has {size} bytes, expected at most {MAX_CONSTRAINT_BYTES}")


def invalid(field: str, what: str) -> InvalidRequest:
    """The error of a constraint that cannot be used."""
    return InvalidRequest(f"{field} {what}", reason=Reason.INVALID_SCHEMA, param=field)


def from_response_format(
    kind: str, json_schema: Mapping[str, Any] | None, schema: Mapping[str, Any] | None
) -> ConstraintSpec | None:
    """OpenAI's field. `strict` makes no difference: a schema always holds, exactly.

    Args:
        kind: "text", "json_object" or "json_schema".
        json_schema: The object of that name: a `schema`, and a name nobody here needs.
        schema: llama.cpp's addition to "json_object": a schema that the object has to fit.

    Raises:
        InvalidRequest: there is no schema (INVALID_SCHEMA), or one that the kind does not use.
    """
    used = {"json_object": "schema", "json_schema": "json_schema"}.get(kind)
    for name, value in {"json_schema": json_schema, "schema": schema}.items():
        if value is not None and name != used:
            field = f"response_format.{name}"
            raise InvalidRequest(f"{field} is given with type {kind}, which has none", param=field)
    if kind == "text":
        return None
    if kind == "json_schema":
        return _from_json_schema(json_schema)
    if not schema:
        return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field="response_format")
    return ConstraintSpec(
        kind=ConstraintKind.JSON_SCHEMA, text=_json(schema), field="response_format.schema"
    )


def _from_json_schema(json_schema: Mapping[str, Any] | None) -> ConstraintSpec:
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
        if not value:
            raise invalid(field, "is empty")
        return ConstraintSpec(kind=ConstraintKind.CHOICE, texts=tuple(value), field=field)
    if name == "json_object":
        if not value:
            raise invalid(field, "must be true where it is given")
        return ConstraintSpec(kind=ConstraintKind.JSON_OBJECT, field=field)
    kind = ConstraintKind.REGEX if name == "regex" else ConstraintKind.LARK
    return ConstraintSpec(kind=kind, text=value, field=field)


def from_schema(schema: Mapping[str, Any], *, field: str) -> ConstraintSpec:
    """A JSON schema that stands at `field` of a request."""
    return ConstraintSpec(kind=ConstraintKind.JSON_SCHEMA, text=_json(schema), field=field)


def with_whitespace(
    constraint: ConstraintSpec, *, pattern: str | None, is_disabled: bool, field: str
) -> ConstraintSpec:
    """The constraint with other white space between the tokens of JSON than the usual blanks.

    Args:
        constraint: Of JSON, if anything is to change.
        pattern: A regular expression; None leaves it.
        is_disabled: No white space at all; False leaves it.
        field: What holds `whitespace_pattern` and `disable_any_whitespace`, for errors.

    Raises:
        InvalidRequest: both are wanted, or one without JSON.
    """
    if pattern is None and not is_disabled:
        return constraint
    name = "disable_any_whitespace" if is_disabled else "whitespace_pattern"
    if constraint.kind not in (ConstraintKind.JSON_SCHEMA, ConstraintKind.JSON_OBJECT):
        raise InvalidRequest(
            f"{field}.{name} is given with {constraint.field}, expected a form of JSON",
            param=f"{field}.{name}",
        )
    if is_disabled and pattern is not None:
        raise InvalidRequest(
            f"{field}.{name} leaves no place for {field}.whitespace_pattern, expected one of them",
            param=f"{field}.{name}",
        )
    return dataclasses.replace(
        constraint, whitespace_pattern=pattern, disable_any_whitespace=is_disabled
    )


def _json(schema: Mapping[str, Any]) -> str:
    """The schema's text; the order of properties is the client's, and so becomes the answer's."""
    return json.dumps(schema, ensure_ascii=False)


def _check_unicode(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, "holds text that is not valid Unicode (a lone surrogate)") from error
