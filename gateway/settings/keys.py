"""Settings of who may ask, and how much at once."""

import os
from dataclasses import dataclass
from pathlib import Path

from gateway.settings.entries import entries
from protos.process.settings import SettingError, setting
from protos.wire.channels import MIB

MIN_DIGEST_KEY_CHARS = 16


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Keys, what is named with a secret, and places for requests."""

    api_key: str | None = setting(
        "keys, comma-separated, one of which every request must carry; unset: none. Requests of"
        " different keys share no cached prefix",
        default=None,
        secret=True,
    )
    key_file: str | None = setting(
        "TOML file of further keys with a name, limits and a priority each, read again when it"
        " changes and on SIGHUP",
        default=None,
    )
    digest_key: str | None = setting(
        "secret of 16 characters or more that images and tenants are named with, so that"
        " gateways with the same one share their decoders' cached prefixes; better given by"
        " environment or digest_key_file than as a flag; unset: random",
        default=None,
        secret=True,
    )
    digest_key_file: str | None = setting(
        "file that holds digest_key, blanks around it ignored", default=None
    )
    max_in_flight: int = setting("requests at work before 429", default=256, least=1)
    max_key_in_flight: int | None = setting(
        "requests of one key at work before 429, where key_file says nothing else of it; unset:"
        " three quarters of max_in_flight where there are several keys",
        default=None,
        least=1,
    )
    max_in_flight_bytes: int = setting(
        "bytes of their bodies before 429", default=512 * MIB, least=1
    )

    def check_keys(self) -> None:
        """Checks what these settings say together.

        Raises:
            SettingError: no key, or a digest key that is given twice or too short.
        """
        if self.api_key is not None and not self.api_keys:
            raise SettingError("api_key names no key")
        if self.digest_key is not None and self.digest_key_file is not None:
            raise SettingError("digest_key and digest_key_file are both set, expected one of them")
        if self.digest_key is not None and len(self.digest_key) < MIN_DIGEST_KEY_CHARS:
            raise SettingError(f"digest_key must have at least {MIN_DIGEST_KEY_CHARS} characters")

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys; empty where none is needed."""
        return tuple(entries(self.api_key or ""))

    @property
    def most_of_key(self) -> int:
        """Requests of one key at work; with several, none of them can take every place."""
        if self.max_key_in_flight is not None:
            return self.max_key_in_flight
        several = len(self.api_keys) > 1 or self.key_file is not None
        return max(1, self.max_in_flight * 3 // 4) if several else self.max_in_flight

    def secret(self) -> bytes:
        """What images and tenants are named with; reads `digest_key_file`.

        Raises:
            SettingError: the file cannot be read, or holds too little.
        """
        text = self.digest_key
        if self.digest_key_file is not None:
            try:
                text = Path(self.digest_key_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingError("digest_key_file cannot be read") from error
            if len(text) < MIN_DIGEST_KEY_CHARS:
                raise SettingError(
                    f"digest_key_file must hold at least {MIN_DIGEST_KEY_CHARS} characters"
                )
        return os.urandom(32) if text is None else text.encode()
