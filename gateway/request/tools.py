"""The tools a conversation offers, and what an answer may make of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protos.wire.errors import InvalidRequest, Reason

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

# OpenAI's meaning of a function without parameters: its list of them is empty.
_NO_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


class ToolMode(StrEnum):
    """Whether tools are called; the values are OpenAI's. `none` is a conversation without tools."""

    AUTO = "auto"  # the model decides
    REQUIRED = "required"  # the answer is calls


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """What a client lets the model do with the tools of a conversation.

    Attributes:
        names: The tools that may be called; empty for all.
        parallel: Whether one answer may hold several calls.
    """

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] = ()
    parallel: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call.

    Attributes:
        schema: JSON schema of its arguments, an object.
        is_strict: The schema is held whole or refused; else what of it cannot be held is left out.
    """

    name: str
    schema: Mapping[str, Any]
    is_strict: bool


def tool_of(spec: Mapping[str, Any], field: str) -> Tool:
    """A tool as OpenAI's clients write it: {"type": "function", "function": {...}}.

    Args:
        spec: The JSON object.
        field: Its place in the request, for errors.

    Raises:
        InvalidRequest: it is no function, or its name or parameters are not of the form.
    """
    function = spec.get("function")
    if spec.get("type") != "function" or not isinstance(function, Mapping):
        raise InvalidRequest(
            f'{field} must be {{"type": "function", "function": {{...}}}}', param=field
        )
    field = f"{field}.function"
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{field}.name must be 1 to 64 letters, digits, dots, dashes or underscores",
            param=f"{field}.name",
        )
    if not isinstance(function.get("description"), str | None):
        raise InvalidRequest(f"{field}.description must be a string", param=f"{field}.description")
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        raise InvalidRequest(f"{field}.strict must be true or false", param=f"{field}.strict")
    return Tool(
        name=name,
        schema=_schema(function.get("parameters"), f"{field}.parameters"),
        is_strict=bool(strict),
    )


def _schema(parameters: object, field: str) -> Mapping[str, Any]:
    if parameters is None or parameters == {}:
        return _NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"{field} must be a JSON schema, an object", param=field)
    if parameters.get("type", "object") != "object":
        raise InvalidRequest(
            f'{field}.type must be "object": arguments are named',
            reason=Reason.INVALID_SCHEMA,
            param=field,
        )
    return parameters


def callable_tools(tools: Sequence[Tool], choice: ToolChoice) -> tuple[Tool, ...]:
    """Those of a conversation's tools that an answer may call.

    Raises:
        InvalidRequest: a call is required of no tool, or of one that is not there.
    """
    known = {tool.name for tool in tools}
    for name in choice.names:
        if name not in known:
            raise InvalidRequest(
                f"tool_choice names {name[:64]!r}, which is none of the tools", param="tool_choice"
            )
    if choice.mode is ToolMode.REQUIRED and not tools:
        raise InvalidRequest("tool_choice is required without tools", param="tool_choice")
    return tuple(tool for tool in tools if not choice.names or tool.name in choice.names)
