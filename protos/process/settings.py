"""Settings of a process: one frozen dataclass, filled from flags and environment, read once.

A service declares fields with `setting(...)`, and their ranges with them; `load` builds the
dataclass from command-line flags (`--max-slots`) over environment names (`DECODER_MAX_SLOTS`) over
a TOML file (`--config`, or `DECODER_CONFIG`) over defaults.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from protos.process import settings_file
from protos.process.settings_file import SettingsFileError, nearest

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("auto", "text", "json")
MAX_PORT = 65535
FILE = "config"  # what names the file; no setting is called so

T = TypeVar("T")


class SettingError(Exception):
    """A setting is unknown, missing or malformed; the text names it."""


def setting(
    description: str,
    *,
    default: Any = dataclasses.MISSING,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    secret: bool = False,
) -> Any:
    """Declares one dataclass field; `check` holds its range.

    Args:
        description: The line `--help` shows for it.
        default: Its value where nobody gives one; without one it must be given.
        least: Smallest value.
        most: Largest value.
        above: Every value is larger than this.
        choices: The only values.
        secret: Never written to a log.
    """
    metadata = {
        "help": description,
        "least": least,
        "most": most,
        "above": above,
        "choices": tuple(choices),
        "secret": secret,
    }
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(config: Any) -> None:
    """Checks every field against what its `setting` says; None, where allowed, is unset.

    Called by a settings class's `__post_init__`.

    Raises:
        SettingError: a value out of range, by name.
    """
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata
        if value is None:
            continue
        # Written so that NaN fails: every comparison with it is false.
        if rule["least"] is not None and not value >= rule["least"]:
            raise SettingError(f"{field.name} is {value}, expected at least {rule['least']}")
        if rule["above"] is not None and not value > rule["above"]:
            raise SettingError(f"{field.name} is {value}, expected more than {rule['above']}")
        if rule["most"] is not None and not value <= rule["most"]:
            raise SettingError(f"{field.name} is {value}, expected at most {rule['most']}")
        if rule["choices"] and value not in rule["choices"]:
            *others, last = rule["choices"]
            raise SettingError(f"{field.name} is {value!r}, expected {', '.join(others)} or {last}")


def load(
    cls: type[T],
    *,
    program: str,
    prefix: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> T:
    """Builds `cls` from flags, then environment, then a file that one of them names, then defaults.

    Args:
        cls: Keyword-only dataclass whose fields are str, int, float, bool or one of these
            with None.
        program: What `--help` calls the program.
        prefix: Start of the environment names, for example "DECODER".
        argv: Command-line arguments after the program's name.
        environ: Environment to read.

    Raises:
        SettingError: an unknown name, a value of the wrong type, a missing value, or a file that
            cannot be used.
    """
    fields = {field.name: field for field in _own_first(cls)}
    hints = typing.get_type_hints(cls)
    told = _from_environment(fields, prefix, environ)
    told.update(_from_flags(fields, program, argv))
    file = told.pop(FILE, None)
    raw = {**(_from_file(fields, prefix, file) if file else {}), **told}
    values = {name: _parse(name, hints[name], text) for name, text in raw.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        name = missing[0]
        raise SettingError(f"{name} is not set: give --{_flag(name)} or {prefix}_{name.upper()}")
    return cls(**values)


def _own_first(cls: type[Any]) -> "list[dataclasses.Field[Any]]":
    """The fields of a class, those that it shares with other services last."""
    return sorted(dataclasses.fields(cls), key=lambda field: field.name not in cls.__annotations__)


def describe(config: Any) -> str:
    """The effective settings as one line for the log, secrets hidden."""
    return " ".join(
        f"{field.name}={_shown(field, getattr(config, field.name))}"
        for field in _own_first(type(config))
    )


def _shown(field: "dataclasses.Field[Any]", value: Any) -> str:
    return "***" if field.metadata["secret"] and value is not None else repr(value)


def _from_environment(
    fields: Mapping[str, Any], prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for key, text in environ.items():
        if key.startswith(f"{prefix}_"):
            name = key.removeprefix(f"{prefix}_").lower()
            if name not in fields and name != FILE:
                hint = nearest(name.upper(), map(str.upper, fields), shown=f"{prefix}_{{}}")
                raise SettingError(f"{key} is not a setting of this service{hint}")
            found[name] = text
    return found


def _from_file(fields: Mapping[str, Any], prefix: str, file: str) -> dict[str, str]:
    try:
        found = dict(settings_file.section(file, prefix.lower()))
    except SettingsFileError as error:
        raise SettingError(str(error)) from error
    for name in found:
        if name not in fields:
            raise SettingError(
                f"{file}: {name} is not a setting of {prefix.lower()}{nearest(name, fields)}"
            )
    return found


def _from_flags(fields: Mapping[str, Any], program: str, argv: Sequence[str]) -> dict[str, str]:
    parser = argparse.ArgumentParser(prog=program, allow_abbrev=False, exit_on_error=False)
    for name, field in fields.items():
        text = field.metadata.get("help", "").replace("%", "%%")
        if field.default is not dataclasses.MISSING:
            text += f" (default {field.default})"
        parser.add_argument(f"--{_flag(name)}", dest=name, default=None, help=text)
    parser.add_argument(
        f"--{FILE}",
        default=None,
        help="TOML file of settings, which flags and environment outdo; with sections [vision],"
        " [decoder], [gateway] for several services",
    )
    try:
        known, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise SettingError(str(error)) from error
    if unknown:
        name = unknown[0].partition("=")[0]
        hint = nearest(name.lstrip("-"), map(_flag, [*fields, FILE]), shown="--{}")
        raise SettingError(f"{name} is not a setting of this service{hint}")
    return {name: text for name, text in vars(known).items() if text is not None}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _parse(name: str, hint: Any, text: str) -> Any:
    if isinstance(hint, types.UnionType):
        if text.lower() in ("", "none"):
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise SettingError(f"{name} must be true or false, got {text!r}")
        return text.lower() in ("true", "1")
    try:
        return hint(text)
    except ValueError as error:
        raise SettingError(f"{name} must be of type {hint.__name__}, got {text!r}") from error
