"""A TOML file of settings: of one service, or of all three in a section each."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SECTIONS = ("vision", "decoder", "gateway")


class SettingsFileError(ValueError):
    """A file cannot be used; the text names it, and what in it is wrong."""


def read(path: str) -> Mapping[str, Any]:
    """The file's tables and values.

    Raises:
        SettingsFileError: it cannot be read, or is not TOML.
    """
    try:
        with Path(path).open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise SettingsFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsFileError(f"{path} is not TOML: {error}") from error


def section(path: str, tier: str) -> Mapping[str, str]:
    """What a file says for one service, as texts that flags could have.

    A file with a section named after a tier holds sections alone, and a service reads its own;
    any other file is of one service.

    Raises:
        SettingsFileError: see `read`; or a section that is none, or a value of no setting's kind.
    """
    found = read(path)
    if any(name in SECTIONS for name in found) or _is_sectioned(found):
        for name, value in found.items():
            if name not in SECTIONS:
                hint = nearest(name, SECTIONS)
                raise SettingsFileError(
                    f"{path}: {name} is no section, expected {', '.join(SECTIONS)}{hint}"
                )
            if not isinstance(value, dict):
                raise SettingsFileError(f"{path}: {name} is not a section, write [{name}]")
        found = found.get(tier, {})
    return {name.replace("-", "_"): _text(path, name, value) for name, value in found.items()}


def nearest(name: str, known: Iterable[str], *, shown: str = "{}") -> str:
    """`; did you mean X?` with the known name that is most like it; "" where none is.

    Args:
        name: What was given.
        known: What could have been.
        shown: How a name is written, with {} in its place.
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {shown.format(found[0])}?" if found else ""


def _is_sectioned(found: Mapping[str, Any]) -> bool:
    return bool(found) and all(isinstance(value, dict) for value in found.values())


def _text(path: str, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, int | float | str) for part in value):
        return ",".join(map(str, value))
    raise SettingsFileError(
        f"{path}: {name} is a {type(value).__name__}, expected a text, a number, true, false or a"
        " list"
    )
