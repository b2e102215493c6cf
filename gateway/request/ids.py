"""Request ids: taken from the client where they are harmless, made here otherwise."""

import hashlib
import re
import uuid

MAX_CHARS = 128  # the decoder takes no longer ones either
_DIGEST_CHARS = 16
_HARMLESS = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_CHARS}}}")


def request_id(wanted: str | None) -> str:
    """The client's id, or a new one; ids end up in logs and headers, so odd ones are replaced."""
    if wanted is not None and _HARMLESS.fullmatch(wanted):
        return wanted
    return uuid.uuid4().hex


def choice_id(wanted: str, choice: int) -> str:
    """The id under which one choice of a request is generated: its own, or with a number behind.

    The end of an id that leaves no room for the number gives way to a digest of the whole, so that
    ids that differ only there stay apart.
    """
    return wanted if choice == 0 else _with_suffix(wanted, f"-{choice}")


def moved_id(wanted: str, move: int) -> str:
    """The id of a choice that was moved: its decoder may be the one where the last call hangs.

    No client's id is like it, because none holds a plus sign.
    """
    return _with_suffix(wanted, f"+{move}")


def _with_suffix(wanted: str, suffix: str) -> str:
    room = MAX_CHARS - len(suffix)
    if len(wanted) > room:
        digest = hashlib.sha256(wanted.encode()).hexdigest()[:_DIGEST_CHARS]
        wanted = wanted[: room - _DIGEST_CHARS] + digest
    return wanted + suffix
