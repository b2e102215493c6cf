"""Plain values as YAML that people read: no anchors, text of several lines as it is."""

from collections.abc import Sequence
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):  # type: ignore[misc] # a class of yaml, untyped
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)


def to_yaml(documents: Sequence[Any]) -> str:
    """The documents one after another, keys in their own order."""
    text: str = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False)
    return text
