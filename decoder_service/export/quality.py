"""placeholder"""

from typing import Any


def report(*_a: Any) -> dict[str, Any]:
    return {}
