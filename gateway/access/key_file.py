"""Keys from a TOML file, which is read again when it changes.

[[keys]]
name = "web"                      # in logs and metrics
key_sha256 = "9f86d081884c..."    # or: key = "..."
max_in_flight = 16
requests_per_minute = 600
prompt_tokens_per_minute = 100000
image_tokens_per_minute = 50000
priority = 10
"""

import asyncio
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gateway.access.accounts import KeyLimits, Rated
from gateway.access.keys import KeyEntry, KeyRing, digest_of
from protos.process.settings import SettingError
from protos.wire.sampling import MAX_PRIORITY

logger = logging.getLogger(__name__)

MAX_KEYS = 1000  # each is a label of metrics
MAX_FILE_BYTES = 1024 * 1024
MAX_RATE = 10**9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,512}", re.ASCII)  # what a header carries as it is
_PLACE = re.compile(r"\(at (line [0-9]+, column [0-9]+|end of document)\)")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_RATES = {
    "requests_per_minute": Rated.REQUESTS,
    "prompt_tokens_per_minute": Rated.PROMPT_TOKENS,
    "image_tokens_per_minute": Rated.IMAGE_TOKENS,
}
_FIELDS = ("name", "key", "key_sha256", "max_in_flight", *_RATES, "priority")

Signature = tuple[int, int, int]


class KeyFile:
    """Keeps a ring at what the file says.

    Args:
        path: Of the file.
        ring: Gets its keys.
        others: Keys that are accepted beside them.
    """

    def __init__(self, path: Path, ring: KeyRing, *, others: Sequence[KeyEntry]) -> None:
        self._path = path
        self._ring = ring
        self._others = tuple(others)
        self._read_at: Signature | None = None

    def load(self) -> None:
        """Reads the file.

        Raises:
            SettingError: it cannot be read or holds something else; the ring stays as it is.
        """
        try:
            self._read_at = self._signature()  # before the text, which may change meanwhile
            if self._read_at[2] > MAX_FILE_BYTES:
                raise SettingError(f"key_file is larger than {MAX_FILE_BYTES} bytes")
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError("key_file cannot be read") from error
        entries = [*self._others, *parsed(text)]
        _check_distinct(entries)
        before = {account.name for account in self._ring.accounts}
        self._ring.replace(entries)
        _log_change(before, {entry.name for entry in entries})

    def reload(self) -> None:
        """Reads the file again; where it is broken, the keys stay and one line is logged."""
        try:
            self.load()
        except SettingError as error:
            logger.error("keys stay as they were: %s", error)

    async def watch(self, interval_s: float) -> None:
        """Reads the file again whenever it changes; for ever."""
        while True:
            await asyncio.sleep(interval_s)
            if self._has_changed():
                self.reload()

    def _has_changed(self) -> bool:
        try:
            return self._signature() != self._read_at
        except OSError:
            # Editors and secret stores take a file away for a moment.
            return False

    def _signature(self) -> Signature:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size


def open_keys(api_keys: Sequence[str], path: str | None) -> tuple[KeyRing, KeyFile | None]:
    """The keys that are accepted, and the file that changes them.

    Args:
        api_keys: Keys without a name of their own, called key-1 and so on.
        path: Of the file of keys; None for none.

    Raises:
        SettingError: the file cannot be used.
    """
    named = [KeyEntry.of(f"key-{at}", key) for at, key in enumerate(api_keys, start=1)]
    ring = KeyRing(named)
    if path is None:
        return ring, None
    file = KeyFile(Path(path), ring, others=named)
    file.load()
    return ring, file


def parsed(text: str) -> list[KeyEntry]:
    """The keys of a file's text.

    Raises:
        SettingError: names the entry and the field at fault, never a key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Not the library's text, in which a key may be.
        where = _PLACE.search(str(error))
        raise SettingError(f"key_file is no TOML {where[0] if where else ''}".strip()) from error
    tables = content.pop("keys", None)
    if content:
        raise SettingError("key_file must hold tables [[keys]] alone")
    if not isinstance(tables, list) or not 1 <= len(tables) <= MAX_KEYS:
        raise SettingError(f"key_file must hold 1 to {MAX_KEYS} tables [[keys]]")
    return [_entry(table, f"keys[{at}]") for at, table in enumerate(tables)]


def _entry(table: Any, place: str) -> KeyEntry:
    if not isinstance(table, Mapping):
        raise SettingError(f"key_file: {place} must be a table")
    for field in table:
        if field not in _FIELDS:
            # Not the field's own name, which may be a key in the wrong place.
            near = get_close_matches(field, _FIELDS, 1)
            raise SettingError(
                f"key_file: {place} holds an unknown field{', like ' if near else ''}"
                f"{''.join(near)}; expected {', '.join(_FIELDS)}"
            )
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingError(
            f"key_file: {place}.name must be 1 to 64 letters, digits, dots, underscores or hyphens"
        )
    rates = {
        rated: _number(table, field, place, 1, MAX_RATE)
        for field, rated in _RATES.items()
        if field in table
    }
    limits = KeyLimits(
        max_in_flight=_optional(table, "max_in_flight", place, 1, MAX_RATE),
        per_minute=rates,
        priority=_optional(table, "priority", place, -MAX_PRIORITY, MAX_PRIORITY),
    )
    return KeyEntry(name=name, digest=_digest(table, place), limits=limits)


def _digest(table: Mapping[str, Any], place: str) -> bytes:
    key, hashed = table.get("key"), table.get("key_sha256")
    if (key is None) == (hashed is None):
        raise SettingError(f"key_file: {place} must have either key or key_sha256")
    if hashed is not None:
        if not isinstance(hashed, str) or not _SHA256.fullmatch(hashed):
            raise SettingError(f"key_file: {place}.key_sha256 must be 64 hexadecimal digits")
        return bytes.fromhex(hashed)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise SettingError(
            f"key_file: {place}.key must be 1 to 512 visible characters of ASCII without blanks"
        )
    return digest_of(key)


def _optional(
    table: Mapping[str, Any], field: str, place: str, least: int, most: int
) -> int | None:
    return _number(table, field, place, least, most) if field in table else None


def _number(table: Mapping[str, Any], field: str, place: str, least: int, most: int) -> int:
    value = table[field]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingError(
            f"key_file: {place}.{field} must be a whole number from {least} to {most}"
        )
    return value


def _check_distinct(entries: Iterable[KeyEntry]) -> None:
    names: set[str] = set()
    digests: dict[bytes, str] = {}
    for entry in entries:
        if entry.name in names:
            raise SettingError(f"key_file: {entry.name} is the name of two keys")
        if entry.digest in digests:
            raise SettingError(
                f"key_file: {entry.name} has the key of {digests[entry.digest]}, expected another"
            )
        names.add(entry.name)
        digests[entry.digest] = entry.name


def _log_change(before: set[str], after: set[str]) -> None:
    logger.info(
        "keys: %d; new: %s; gone: %s",
        len(after),
        " ".join(sorted(after - before)) or "none",
        " ".join(sorted(before - after)) or "none",
    )
