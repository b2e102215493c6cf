"""Reads a checkpoint's JSON files key by key: what is missing or odd is refused by its name.

Nothing is filled from a library's class defaults, which belong to no published checkpoint.
"""

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.export.errors import ExportError


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Reads one JSON object of a checkpoint.

    Raises:
        ExportError: the file is missing or no JSON object.
    """
    file = folder / name
    if not file.is_file():
        raise ExportError(f"the checkpoint lacks {name}")
    return parse_object(name, file.read_bytes())


def parse_object(name: str, data: bytes) -> dict[str, Any]:
    """Parses one JSON object of a checkpoint's file `name`.

    Raises:
        ExportError: it is no JSON object.
    """
    value = parse(name, data)
    if not isinstance(value, dict):
        raise ExportError(f"{name} is not a JSON object")
    return value


def parse(name: str, data: bytes) -> Any:
    """Parses any JSON of a checkpoint's file `name`.

    Raises:
        ExportError: it is no JSON.
    """
    if data.startswith(codecs.BOM_UTF8):
        # json.loads would take it from bytes; transformers and the services read text.
        raise ExportError(f"{name} begins with a byte order mark; save it as UTF-8 without one")
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ExportError(f"{name} is not valid JSON") from error


def require(source: Mapping[str, Any], key: str, where: str, kind: type) -> Any:
    """The value of `key`.

    Raises:
        ExportError: it is missing or of another type.
    """
    if key not in source:
        raise ExportError(f"{where} lacks {key}")
    value = source[key]
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (kind in (int, float) and isinstance(value, bool)):
        raise ExportError(f"{where}: {key} is {value!r}, expected {kind.__name__}")
    return value


def positive(source: Mapping[str, Any], key: str, where: str) -> int:
    """The value of `key`, an integer of at least 1.

    Raises:
        ExportError: it is missing or something else.
    """
    value = require(source, key, where, int)
    if value < 1:
        raise ExportError(f"{where}: {key} is {value}, expected at least 1")
    return int(value)


def expect(source: Mapping[str, Any], key: str, value: object, where: str) -> None:
    """Refuses any other value of `key` than `value`.

    Raises:
        ExportError: it is missing or different.
    """
    found = require(source, key, where, object)
    if found != value or type(found) is not type(value):
        raise ExportError(f"{where}: {key} is {found!r}, supported is {value!r}")
