"""A request's grammar, checked for size before anything reads it in earnest."""

import json
from dataclasses import dataclass
from typing import Any

from decoder_service.grammar.grammar import Grammar, GrammarKind


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """What grammars may cost, all together and one by one."""

    max_bytes: int = 64 * 1024  # of a grammar's text
    max_depth: int = 32  # of a schema's JSON
    max_enum_values: int = 4096  # of a schema, in all its enums; also texts of a choice
    compile_s: float = 2.0
    cache_bytes: int = 64 * 1024 * 1024
    max_compiling: int = 64  # grammars being compiled or waiting for it


def check_grammar(grammar: Grammar, limits: GrammarLimits) -> None:
    """Checks sizes and, of a schema, its JSON.

    Raises:
        InvalidRequest: INVALID_SCHEMA, with the limit.
    """
    text = grammar.text + (grammar.whitespace.pattern or "")
    size = len(text.encode("utf-8", errors="replace"))
    if size > limits.max_bytes:
        raise grammar.refusal(f"has {size} bytes, expected at most {limits.max_bytes}")
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            _check_schema(grammar, limits)
        case GrammarKind.CHOICE:
            _check_choice(grammar, limits)
        case GrammarKind.REGEX | GrammarKind.LARK:
            if not grammar.text:
                raise grammar.refusal("is empty")


def _check_choice(grammar: Grammar, limits: GrammarLimits) -> None:
    texts = json.loads(grammar.text)
    if not 1 <= len(texts) <= limits.max_enum_values:
        raise grammar.refusal(f"has {len(texts)} texts, expected 1 to {limits.max_enum_values}")
    if not all(texts):
        raise grammar.refusal("has an empty text")


def _check_schema(grammar: Grammar, limits: GrammarLimits) -> None:
    try:
        schema = json.loads(grammar.text)
    except (ValueError, RecursionError) as error:
        raise grammar.refusal("is not valid JSON, or nested too deeply") from error
    if not isinstance(schema, dict):
        raise grammar.refusal("is not a JSON object")
    depth, enum_values = _measures(schema)
    if depth > limits.max_depth:
        raise grammar.refusal(f"is nested {depth} levels deep, expected at most {limits.max_depth}")
    if enum_values > limits.max_enum_values:
        raise grammar.refusal(
            f"has {enum_values} enum values, expected at most {limits.max_enum_values}"
        )


def _measures(schema: dict[str, Any]) -> tuple[int, int]:
    """Depth of a JSON value's nesting, and values in its enums."""
    deepest, enum_values = 0, 0
    open_values: list[tuple[Any, int]] = [(schema, 1)]
    while open_values:
        value, depth = open_values.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict):
            enum = value.get("enum")
            enum_values += len(enum) if isinstance(enum, list) else 0
            inner = list(value.values())
        else:
            inner = value
        open_values += [(item, depth + 1) for item in inner if isinstance(item, dict | list)]
    return deepest, enum_values
