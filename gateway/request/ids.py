"""Request ids: taken from the client where they are harmless, made here otherwise."""

import re
import uuid

_HARMLESS = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(wanted: str | None) -> str:
    """The client's id, or a new one; ids end up in logs and headers, so odd ones are replaced."""
    if wanted is not None and _HARMLESS.fullmatch(wanted):
        return wanted
    return uuid.uuid4().hex
