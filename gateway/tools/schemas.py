"""JSON schemas as rules of a Lark grammar, in llguidance's notation."""

import json
import re
from collections.abc import Mapping
from typing import Any

# One blank after each colon and comma and no others, as the decoder writes JSON by default.
_STYLE: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_VALUES = ("enum", "const", "default", "examples")  # what they hold is no schema
_REMARKS = ("title", "description", "$comment")
_LOOKS_AROUND = re.compile(r"\(\?<?[=!]|\\[1-9]")  # no grammar can, and back-references neither


def json_rule(
    schema: Mapping[str, Any],
    *,
    is_strict: bool,
    whitespace_pattern: str | None = None,
    disable_any_whitespace: bool = False,
) -> str:
    """The right side of a rule: JSON that fits the schema.

    Args:
        schema: JSON schema; its own `x-guidance` counts, as everywhere.
        is_strict: All of it is held, or the grammar refused; else keywords that cannot be held
            are left out, as clients expect who did not ask for `strict`.
        whitespace_pattern: What may stand between the tokens of JSON.
        disable_any_whitespace: Nothing stands there.
    """
    own = schema.get("x-guidance")
    style = {**_STYLE, **(own if isinstance(own, Mapping) else {})}
    if whitespace_pattern is not None or disable_any_whitespace:
        style |= {"item_separator": ",", "key_separator": ":"}
        style |= {"whitespace_flexible": False, "whitespace_pattern": whitespace_pattern}
    if not is_strict:
        style["lenient"] = True
    bare = _bare(schema, is_strict=is_strict)
    return "%json " + json.dumps({**bare, "x-guidance": style}, ensure_ascii=False)


def _bare(schema: Any, *, is_strict: bool) -> Any:
    """A schema without its remarks, which count towards the limit of a grammar's size.

    Where `is_strict` is not asked, without the patterns that need more than a regular language
    either. A property may have the name of a remark, but its value is no text.
    """
    if isinstance(schema, list):
        return [_bare(item, is_strict=is_strict) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: value if key in _VALUES else _bare(value, is_strict=is_strict)
        for key, value in schema.items()
        if not (isinstance(value, str) and _is_idle(key, value, is_strict=is_strict))
    }


def _is_idle(key: str, value: str, *, is_strict: bool) -> bool:
    return key in _REMARKS or (
        not is_strict and key == "pattern" and _LOOKS_AROUND.search(value) is not None
    )
