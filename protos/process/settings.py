"""Settings of a process: one frozen dataclass, filled from flags and environment, read once.

A service declares fields with `setting(...)`; `load` builds the dataclass from command-line
flags (`--max-slots`) over environment names (`DECODER_MAX_SLOTS`) over defaults.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class SettingError(Exception):
    """A setting is unknown, missing or malformed; the text names it."""


def setting(description: str, *, default: Any = dataclasses.MISSING) -> Any:
    """Declares one dataclass field with the line `--help` shows for it."""
    metadata = {"help": description}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[T], *, prefix: str, argv: Sequence[str], environ: Mapping[str, str]) -> T:
    """Builds `cls` from flags, then environment, then defaults.

    Args:
        cls: Keyword-only dataclass whose fields are str, int, float, bool or one of these
            with None.
        prefix: Start of the environment names, for example "DECODER".
        argv: Command-line arguments after the program's name.
        environ: Environment to read.

    Raises:
        SettingError: an unknown `PREFIX_...` name, a value of the wrong type, a missing value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    raw = _from_environment(fields, prefix, environ)
    raw.update(_from_flags(fields, prefix, argv))
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


def describe(config: Any) -> str:
    """The effective settings as one line for the log."""
    return " ".join(
        f"{field.name}={getattr(config, field.name)!r}" for field in dataclasses.fields(config)
    )


def _from_environment(
    fields: Mapping[str, Any], prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for key, text in environ.items():
        if key.startswith(f"{prefix}_"):
            name = key.removeprefix(f"{prefix}_").lower()
            if name not in fields:
                raise SettingError(f"{key} is not a setting of this service")
            found[name] = text
    return found


def _from_flags(fields: Mapping[str, Any], prefix: str, argv: Sequence[str]) -> dict[str, str]:
    parser = argparse.ArgumentParser(
        prog=f"{prefix.lower()}_service" if prefix != "GATEWAY" else "gateway",
        allow_abbrev=False,
        exit_on_error=False,
    )
    for name, field in fields.items():
        text = field.metadata.get("help", "").replace("%", "%%")
        if field.default is not dataclasses.MISSING:
            text += f" (default {field.default})"
        parser.add_argument(f"--{_flag(name)}", dest=name, default=None, help=text)
    try:
        known, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise SettingError(str(error)) from error
    if unknown:
        raise SettingError(f"{unknown[0]} is not a setting of this service")
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
