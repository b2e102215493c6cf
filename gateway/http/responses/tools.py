"""Tools in the form of Responses, which has a function's fields beside its type."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http.door.typed import MAX_SHOWN_CHARS
from gateway.http.responses.schemas import InputBody
from gateway.request.tools import ToolChoice, ToolMode
from protos.wire.errors import InvalidRequest, Unsupported

_FIELDS = ("name", "description", "parameters")


def function_tools(body: InputBody) -> tuple[Mapping[str, Any], ...]:
    """The tools in the form that templates know, which is that of chat completions.

    Raises:
        Unsupported: a tool that is no function.
    """
    if body.tool_choice == "none":
        return ()
    tools = []
    for index, tool in enumerate(body.tools or ()):
        if tool.get("type") != "function":
            kind = str(tool.get("type"))[:MAX_SHOWN_CHARS]
            raise Unsupported(
                f"tools[{index}] has type {kind!r}, expected function", param=f"tools[{index}]"
            )
        function = {name: tool[name] for name in _FIELDS if tool.get(name) is not None}
        if tool.get("strict") not in (None, False):
            function["strict"] = tool["strict"]
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def tool_choice(body: InputBody) -> ToolChoice:
    """A word, a function's name, or a mode and the tools it concerns.

    Raises:
        InvalidRequest: it is none of these.
    """
    given, parallel = body.tool_choice, body.parallel_tool_calls is not False
    if given in (None, "none", "auto"):
        return ToolChoice(parallel=parallel)
    if given == "required":
        return ToolChoice(mode=ToolMode.REQUIRED, parallel=parallel)
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "function":
        return ToolChoice(mode=ToolMode.REQUIRED, names=_names([given]), parallel=parallel)
    if kind == "allowed_tools" and given.get("mode") in tuple(ToolMode):
        names = _names(given.get("tools"))
        return ToolChoice(mode=ToolMode(given["mode"]), names=names, parallel=parallel)
    raise InvalidRequest(
        'tool_choice must be none, auto, required, {"type": "function", "name": ...} or'
        ' {"type": "allowed_tools", "mode": ..., "tools": [...]}',
        param="tool_choice",
    )


def tools_told(body: InputBody) -> list[dict[str, Any]]:
    """The tools as an answer's body repeats them."""
    return [
        {
            "type": "function",
            "name": tool.get("name"),
            "description": tool.get("description"),
            "parameters": tool.get("parameters"),
            "strict": tool.get("strict") is True,
        }
        for tool in body.tools or ()
    ]


def _names(tools: object) -> tuple[str, ...]:
    names = [
        tool.get("name") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        for tool in (tools if isinstance(tools, Sequence) else ())
    ]
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidRequest("tool_choice must name functions by name", param="tool_choice")
    return tuple(str(name) for name in names)
