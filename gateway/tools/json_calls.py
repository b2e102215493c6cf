"""Calls as JSON: `<tool_call>`, {"name": ..., "arguments": {...}} on a line, `</tool_call>`.

So Hermes' models write them, and Qwen's up to Qwen3-VL.
"""

import json
import re
from collections.abc import Sequence

from gateway.request.tools import Tool
from gateway.tools.format import CallPiece, ToolFormat
from gateway.tools.schemas import json_rule

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')


def body(tools: Sequence[Tool]) -> str:
    """Lark rules of a call of one of the tools."""
    places = range(len(tools))
    rules = ['body: "\\n" (' + " | ".join(f"call_{at}" for at in places) + ') "\\n"']
    for at, tool in zip(places, tools, strict=True):
        head = f'{{"name": {json.dumps(tool.name)}, "arguments": '
        rules.append(f'call_{at}: {json.dumps(head)} arguments_{at} "}}"')
        schema = {"type": "object", **tool.schema}
        rules.append(f"arguments_{at}: {json_rule(schema, is_strict=tool.is_strict)}")
    return "\n".join(rules)


class JsonCallReader:
    """Reads {"name": ..., "arguments": ...}; the arguments are handed on as they are written."""

    def __init__(self) -> None:
        self._head = ""
        self._named = False
        self._depth = 0
        self._in_string = self._escaped = False
        self._complete = False

    @property
    def is_complete(self) -> bool:
        """Whether the arguments' last bracket has come."""
        return self._complete

    def push(self, text: str) -> CallPiece:
        """Takes more of the text between the two tokens."""
        if self._named:
            return CallPiece(None, self._arguments(text))
        self._head += text
        found = _HEAD.match(self._head)
        if found is None or found.end() == len(self._head):  # more blanks may come
            return CallPiece(None, "")
        self._named = True
        return CallPiece(json.loads(found[1]), self._arguments(self._head[found.end() :]))

    def _arguments(self, text: str) -> str:
        """What of the text belongs to the arguments: up to the bracket that closes them."""
        if self._complete:
            return ""
        for at, character in enumerate(text):
            self._step(character)
            if self._complete:
                return text[: at + 1]
        return text

    def _step(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._complete = self._depth == 0


JSON_CALLS = ToolFormat(begin="<tool_call>", end="</tool_call>", body=body, reader=JsonCallReader)
