"""Reading parts of a body whose form depends on their type, with errors that name the place."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.http.errors import from_validation
from protos.wire.errors import InvalidRequest, Reason, Unsupported

MAX_SHOWN_CHARS = 64  # of a client's word that an error repeats


Schema = TypeVar("Schema", bound=BaseModel)


def parsed(schema: type[Schema], given: Mapping[str, Any]) -> Schema:
    """A body's JSON object by its schema.

    Raises:
        InvalidRequest: names the field that does not fit.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise from_validation(error) from None


def one_or_many(value: Any) -> Any:
    """A list, also of what was one string."""
    return [value] if isinstance(value, str) else value


def typed(raw: object, path: str, *, default: str | None = None) -> tuple[Mapping[str, Any], str]:
    """An object and its type.

    Raises:
        InvalidRequest: it is no object, or has no type and there is no default.
    """
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    kind = default if kind is None else kind
    if not isinstance(raw, Mapping) or not isinstance(kind, str):
        raise InvalidRequest(f"{path} must be an object with a type", param=path)
    return raw, kind


def text_in(raw: Mapping[str, Any], name: str, path: str) -> str:
    """A string that must be there.

    Raises:
        InvalidRequest: it is missing, or no string.
    """
    value = raw.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{path}.{name} must be a string", param=f"{path}.{name}")
    return value


def entries(raw: object, path: str) -> Sequence[Any]:
    """A list that must be there.

    Raises:
        InvalidRequest: it is anything else.
    """
    if not isinstance(raw, list):
        raise InvalidRequest(f"{path} must be a list", param=path)
    return raw


def check_known(raw: Mapping[str, Any], path: str, known: Set[str]) -> None:
    """Refuses fields that nobody would hold; null says nothing.

    Raises:
        InvalidRequest: names the field.
    """
    for name, value in raw.items():
        if name not in known and value is not None:
            field = f"{path}.{name[:MAX_SHOWN_CHARS]}"
            raise InvalidRequest(f"{field} is not known here", param=field)


def wrong_type(kind: str, path: str, expected: str) -> Unsupported:
    """The error of a part, item or tool of a type that is not served."""
    return Unsupported(
        f"{path} has type {kind[:MAX_SHOWN_CHARS]!r}, expected {expected}",
        reason=Reason.UNSUPPORTED_MEDIA,
        param=path,
    )
