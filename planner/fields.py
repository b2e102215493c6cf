"""Fields of files and flags, checked one by one; whatever is wrong is one line that names it."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PlanError(Exception):
    """What was given cannot be planned with; the text is one line that names the field."""


def read_object(path: Path) -> Mapping[str, Any]:
    """An object of a JSON file, or of a TOML file by the ending of its name.

    Raises:
        PlanError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text()
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise PlanError(f"{path} is no {kind}: {error}") from error
    if not isinstance(found, dict):
        raise PlanError(f"{path} holds {kind_of(found)}, expected an object")
    return found


def number(
    name: str, value: Any, *, least: float = 0.0, above: float | None = None, most: float = 1e12
) -> float:
    """A number within a range.

    Raises:
        PlanError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlanError(f"{name} is {kind_of(value)}, expected a number")
    # Written so that NaN fails: every comparison with it is false.
    if above is not None and not value > above:
        raise PlanError(f"{name} is {value}, expected more than {above:g}")
    if not value >= least:
        raise PlanError(f"{name} is {value}, expected at least {least:g}")
    if not value <= most:
        raise PlanError(f"{name} is {value}, expected at most {most:g}")
    return float(value)


def count(name: str, value: Any, *, least: int = 0, most: int = 2**31) -> int:
    """A whole number within a range.

    Raises:
        PlanError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlanError(f"{name} is {kind_of(value)}, expected a whole number")
    return int(number(name, value, least=least, most=most))


def required(given: Mapping[str, Any], name: str, *, where: str) -> Any:
    """A field that must be there.

    Raises:
        PlanError: it is missing.
    """
    if name not in given:
        raise PlanError(f"{where} has no {name}")
    return given[name]


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON."""
    if isinstance(value, str):
        return json.dumps(value[:40])
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return json.dumps(value, default=str)
