"""Fields that nobody here knows: refused, or left out and named in a header of the answer."""

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.http.errors import field_path, from_validation

logger = logging.getLogger(__name__)

HEADER = "x-ignored-fields"
MAX_NAMED = 20
MAX_NAME_CHARS = 100

_ODD = re.compile(r"[^A-Za-z0-9_.\[\]-]")

M = TypeVar("M", bound=BaseModel)


class UnknownFields:
    """Those of one request."""

    def __init__(self, *, refused: bool) -> None:
        """Starts with none; `refused` is what becomes of one."""
        self.refused = refused
        self._names: list[str] = []

    def validated(self, model: type[M], body: dict[str, Any]) -> M:
        """A body by its model.

        Raises:
            InvalidRequest: a field is missing, unknown where that is refused, or of another type.
        """
        try:
            return model.model_validate(body)
        except ValidationError as error:
            unknown = [fault["loc"] for fault in error.errors() if fault["type"] == _UNKNOWN]
            if self.refused or not unknown:
                raise from_validation(error) from None
        for location in unknown:
            self._leave_out(body, location)
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise from_validation(error) from None

    def without_unknown(
        self, given: Mapping[str, Any], known: Collection[str], path: str
    ) -> dict[str, Any]:
        """An object without the fields that are not known, which are noted; null says nothing."""
        for name, value in given.items():
            if name not in known and value is not None:
                self._note(f"{path}.{name}")
        return {name: value for name, value in given.items() if name in known}

    def headers(self, request_id: str) -> dict[str, str]:
        """What the answer says of them; they are logged too."""
        if not self._names:
            return {}
        named = ", ".join(self._names[:MAX_NAMED])
        logger.warning("unknown fields are left out, request_id=%s: %s", request_id, named)
        return {HEADER: named}

    def _leave_out(self, body: Any, location: tuple[int | str, ...]) -> None:
        *way, name = location
        for step in way:
            body = body[step]
        del body[name]
        self._note(field_path(location))

    def _note(self, path: str) -> None:
        """Notes a name; it comes from the client and goes into a header."""
        self._names.append(_ODD.sub("?", path[:MAX_NAME_CHARS]))


_UNKNOWN = "extra_forbidden"
