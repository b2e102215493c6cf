"""A checkpoint's generation_config.json: the sampling of every request that does not say its own.

The gateway takes these values as they are, so a wrong one would fail requests that never sent it.
"""

from collections.abc import Mapping
from typing import Any

from deploy.export.errors import ExportError
from protos.wire.errors import InvalidRequest
from protos.wire.sampling import PARAMETERS

NAME = "generation_config.json"
INTEGERS = frozenset({"top_k"})


def check(values: Mapping[str, Any]) -> None:
    """Refuses a default that is of another type than the parameter's, or outside its range.

    A key that is absent or null says nothing. A seed is each request's own, so it is not read.

    Raises:
        ExportError: naming the key.
    """
    for name, parameter in PARAMETERS.items():
        value = values.get(name)
        if value is None or name == "seed":
            continue
        kind = int if name in INTEGERS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind):
            wanted = "an integer" if name in INTEGERS else "a number"
            raise ExportError(f"{NAME}: {name} is {value!r}, expected {wanted}")
        try:
            parameter.check(name, value)
        except InvalidRequest as error:
            raise ExportError(f"{NAME}: {error}; correct it in the checkpoint") from error
    sampled = values.get("do_sample")
    if sampled is not None and not isinstance(sampled, bool):
        raise ExportError(f"{NAME}: do_sample is {sampled!r}, expected true or false")
    pad = values.get("pad_token_id")
    if pad is not None and (isinstance(pad, bool) or not isinstance(pad, int)):
        raise ExportError(f"{NAME}: pad_token_id is {pad!r}, expected an integer")
