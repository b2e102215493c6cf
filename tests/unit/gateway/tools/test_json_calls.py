"""Calls as JSON: read back however their text is cut, and held by a grammar that is one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.request.tools import Tool, tool_of
from gateway.tools.format import CallPiece
from gateway.tools.json_calls import JsonCallReader, body
from gateway.tools.schemas import json_rule
from protos.wire.errors import InvalidRequest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def read(text: str, cuts: list[int]) -> tuple[str | None, str, bool]:
    reader = JsonCallReader()
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [reader.push(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    names = [piece.name for piece in pieces if piece.name is not None]
    assert len(names) <= 1
    arguments = "".join(piece.arguments for piece in pieces)
    return names[0] if names else None, arguments, reader.is_complete


@given(
    arguments=st.dictionaries(st.text(max_size=6), VALUES, max_size=4),
    cuts=st.lists(st.integers(0, 500)),
    name=st.sampled_from(["f", "get_weather", "a.b-c"]),
)
def test_arguments_are_handed_on_as_they_are_written(
    arguments: dict[str, Any], cuts: list[int], name: str
) -> None:
    written = json.dumps(arguments, ensure_ascii=False)
    text = f'\n{{"name": "{name}", "arguments": {written}}}\n'
    assert read(text, cuts) == (name, written, True)


@pytest.mark.parametrize("text", ["", "\n", '\n{"name": "f", "argum', "nothing like it", "[]{}"])
def test_what_is_no_call_has_neither_name_nor_arguments(text: str) -> None:
    assert read(text, [3, 5]) == (None, "", False)


def test_a_name_is_told_before_the_first_argument_is_there() -> None:
    reader = JsonCallReader()
    assert reader.push('{"name": "f", "arguments": ') == CallPiece(None, "")
    assert reader.push('{"a"') == CallPiece("f", '{"a"')
    assert not reader.is_complete


def tool(name: str, **function: Any) -> Tool:
    return tool_of({"type": "function", "function": {"name": name, **function}}, "tools[0]")


def test_each_tool_has_a_rule_of_its_own() -> None:
    rules = body([tool("a"), tool("b", parameters={"properties": {"x": {}}}, strict=True)])
    assert 'body: "\\n" (call_0 | call_1) "\\n"' in rules
    assert 'call_1: "{\\"name\\": \\"b\\", \\"arguments\\": " arguments_1 "}"' in rules
    assert '"additionalProperties": false' in rules  # no parameters at all
    assert 'arguments_1: %json {"type": "object", "properties": {"x": {}}' in rules


def test_what_no_grammar_can_is_left_out_where_strict_is_not_asked() -> None:
    schema = {
        "properties": {
            "a": {"type": "string", "pattern": "^(?!b)c"},
            "pattern": {"type": "string", "pattern": "^d$"},
            "e": {"enum": [{"pattern": "(?=f)"}]},
        }
    }
    for strict in (True, False):
        held = json.loads(json_rule(schema, is_strict=strict).removeprefix("%json "))
        assert ("pattern" in held["properties"]["a"]) is strict
        assert held["properties"]["pattern"]["pattern"] == "^d$"
        assert held["properties"]["e"] == schema["properties"]["e"]
        assert held["x-guidance"].get("lenient", False) is not strict


def test_remarks_do_not_count_but_properties_of_their_names_do() -> None:
    schema = {
        "title": "T",
        "description": "D",
        "properties": {"title": {"type": "string", "description": "D"}, "description": True},
        "required": ["title"],
        "const": {"title": "kept"},
    }
    held = json.loads(json_rule(schema, is_strict=True).removeprefix("%json "))
    del held["x-guidance"]
    assert held == {
        "properties": {"title": {"type": "string"}, "description": True},
        "required": ["title"],
        "const": {"title": "kept"},
    }


def test_white_space_is_that_of_the_decoder_unless_the_schema_says_otherwise() -> None:
    own = {"x-guidance": {"item_separator": ";"}}
    held = json.loads(json_rule(own, is_strict=True).removeprefix("%json "))
    assert held["x-guidance"]["item_separator"] == ";"
    assert held["x-guidance"]["key_separator"] == ": "


@pytest.mark.parametrize("parameters", [[], "x", {"type": "string"}, {"type": ["object"]}])
def test_arguments_are_an_object(parameters: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tool("a", parameters=parameters)
    assert caught.value.param is not None and caught.value.param.endswith("parameters")
