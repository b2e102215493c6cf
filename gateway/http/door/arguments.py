"""A call's arguments as an object, for APIs that have them so; the model writes JSON text."""

from typing import Any

import pydantic_core


def arguments_of(text: str) -> dict[str, Any]:
    """The object; of text that was cut short, what is complete of it."""
    try:
        value = pydantic_core.from_json(text, allow_partial=True)
    except ValueError:  # not even the beginning of JSON
        return {}
    return value if isinstance(value, dict) else {}
