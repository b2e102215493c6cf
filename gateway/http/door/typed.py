"""Reading a body: its fields by a schema, and what has another form for each type by hand.

Errors name the place; fields that nobody here knows are refused, or noted and left out.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from gateway.http.fields import UnknownFields
from protos.wire.errors import InvalidRequest, Reason, Unsupported

MAX_SHOWN_CHARS = 64  # of a client's word that an error repeats

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a body, where it stands, and what becomes of fields that are not known."""

    value: object
    path: str
    unknown: UnknownFields

    @property
    def object(self) -> Mapping[str, Any]:
        """The value, which must be an object.

        Raises:
            InvalidRequest: it is anything else.
        """
        if not isinstance(self.value, Mapping):
            raise InvalidRequest(f"{self.path} must be an object", param=self.path)
        return self.value

    def at(self, name: str) -> Self:
        """A field of an object; null where it is missing."""
        return type(self)(self.object.get(name), f"{self.path}.{name}", self.unknown)

    def entries(self) -> list[Self]:
        """The entries of a list.

        Raises:
            InvalidRequest: it is anything else.
        """
        if not isinstance(self.value, list):
            raise InvalidRequest(f"{self.path} must be a list", param=self.path)
        return [
            type(self)(value, f"{self.path}[{index}]", self.unknown)
            for index, value in enumerate(self.value)
        ]

    def kind(self, default: str | None = None) -> str:
        """The type that an object says it is of.

        Raises:
            InvalidRequest: it is no object, or has no type and there is no default.
        """
        found = self.value.get("type") if isinstance(self.value, Mapping) else None
        found = default if found is None else found
        if not isinstance(self.value, Mapping) or not isinstance(found, str):
            raise InvalidRequest(f"{self.path} must be an object with a type", param=self.path)
        return found

    def text(self, name: str) -> str:
        """A string of an object.

        Raises:
            InvalidRequest: it is missing, or no string.
        """
        found = self.at(name)
        if not isinstance(found.value, str):
            raise InvalidRequest(f"{found.path} must be a string", param=found.path)
        return found.value

    def only(self, known: Set[str]) -> None:
        """Looks for fields of an object that nobody would hold; null says nothing.

        Raises:
            InvalidRequest: names the field, where it is refused.
        """
        if not self.unknown.refused:
            self.unknown.without_unknown(self.object, known, self.path)
            return
        for name, value in self.object.items():
            if name not in known and value is not None:
                path = f"{self.path}.{name[:MAX_SHOWN_CHARS]}"
                raise InvalidRequest(f"{path} is not allowed", param=path)

    def wrong_type(
        self, expected: str, *, reason: Reason = Reason.UNSUPPORTED_MEDIA
    ) -> Unsupported:
        """The error of a part of a type that is not served, or of something else with a type."""
        return Unsupported(
            f"{self.path} has type {self.kind('')[:MAX_SHOWN_CHARS]!r}, expected {expected}",
            reason=reason,
            param=self.path,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A body's JSON object as it came."""

    body: dict[str, Any]
    unknown: UnknownFields

    def validated(self, schema: type[Schema]) -> Schema:
        """The body by its schema.

        Raises:
            InvalidRequest: names the field that does not fit.
        """
        return self.unknown.validated(schema, self.body)

    def at(self, name: str) -> Field:
        """One of its fields; null where it is missing."""
        return Field(self.body.get(name), name, self.unknown)
