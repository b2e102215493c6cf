"""What one end of a wire shows the other and asks of it: files of TLS and a shared token.

The files are read again when they change, so that certificates are renewed without a restart.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from cryptography import x509

logger = logging.getLogger(__name__)

MIN_TOKEN_CHARS = 16

T = TypeVar("T")


class CredentialError(Exception):
    """A file of credentials cannot be used; the text is one line that names the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where an end of a wire has its credentials from.

    Attributes:
        tls: Whether the wire is encrypted.
        certificate, key: PEM files of the certificate this end shows; None: it shows none.
        authority: PEM file of who must have signed the other end's. None: a client trusts the
            system's authorities, and a server asks for no certificate.
        token: Shared tokens, comma-separated; a client tells the first, a server takes any.
        token_file: File that holds them instead, one a line.
        server_name: Host that a server's certificate must be for; None: the host that is called.
        prefix: What the names of the settings of these files begin with, for errors.
    """

    tls: bool = False
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    token: str | None = None
    token_file: str | None = None
    server_name: str | None = None
    prefix: str = "tls_"

    @property
    def has_token(self) -> bool:
        """Whether a token is told and asked for."""
        return self.token is not None or self.token_file is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the files of `Credentials` hold at one time; files in PEM, None where not named."""

    certificate: bytes | None = None
    key: bytes | None = None
    authority: bytes | None = None
    tokens: tuple[str, ...] = ()


class CredentialFiles:
    """The secrets of some credentials, read again when a file of theirs has changed.

    Safe to ask from several threads. Files that cannot be used once they have changed are told in
    the log, and what was there before goes on being used: who renews a certificate writes several
    files one after the other.

    Raises:
        CredentialError: they cannot be used now.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._lock = threading.Lock()
        self._seen = self._marks()
        self._secrets = read_secrets(credentials)

    def current(self) -> Secrets:
        """The secrets as they are now; the same object as long as nothing has changed."""
        with self._lock:
            marks = self._marks()
            if marks != self._seen:
                self._seen = marks
                try:
                    self._secrets = read_secrets(self.credentials)
                    logger.info("credentials were read again")
                except CredentialError as error:
                    logger.warning("credentials stay as they were: %s", error)
            return self._secrets

    def _marks(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells one state of the files from another."""
        files = self.credentials
        return tuple(
            _mark(path)
            for path in (files.certificate, files.key, files.authority, files.token_file)
        )


def _mark(path: str | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else os.stat(path)
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def read_secrets(credentials: Credentials, *, now: datetime | None = None) -> Secrets:
    """Reads and checks the files of credentials.

    Args:
        credentials: Which files.
        now: When certificates must be valid, with a time zone; None: now.

    Raises:
        CredentialError: a file cannot be read or holds something else, a certificate is expired,
            not yet valid, not of the key or, beside one of the same authority, not signed by it,
            or a token is too short.
    """
    prefix = credentials.prefix
    secrets = Secrets(
        certificate=_bytes(credentials.certificate, f"{prefix}certificate"),
        key=_bytes(credentials.key, f"{prefix}key"),
        authority=_bytes(credentials.authority, f"{prefix}authority"),
        tokens=read_tokens(credentials),
    )
    if credentials.tls:
        _check_certificates(secrets, prefix, now or datetime.now(UTC))
    return secrets


def certificate_end(credentials: Credentials) -> datetime | None:
    """When the certificate that is shown ends, or the first of those that vouch for it in its file.

    With a time zone; None where none is shown.

    Raises:
        CredentialError: the file cannot be read, or holds no certificate.
    """
    name = f"{credentials.prefix}certificate"
    if not credentials.tls or credentials.certificate is None:
        return None
    found = _parsed(_bytes(credentials.certificate, name) or b"", name)
    return min(one.not_valid_after_utc for one in found)


def read_tokens(credentials: Credentials) -> tuple[str, ...]:
    """The tokens of credentials, those told first; empty where none is set.

    Raises:
        CredentialError: the file cannot be read, or what it or the setting holds is no token.
    """
    if not credentials.has_token:
        return ()
    name, text = "token", (credentials.token or "").replace(",", "\n")
    if credentials.token_file is not None:
        name = "token_file"
        try:
            text = (_bytes(credentials.token_file, name) or b"").decode("ascii")
        except UnicodeDecodeError as error:
            raise CredentialError(f"{name} holds more than ASCII characters") from error
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens:
        raise CredentialError(f"{name} holds no token")
    for token in tokens:
        if len(token) < MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable():
            raise CredentialError(
                f"{name} must hold tokens of at least {MIN_TOKEN_CHARS} printable ASCII characters"
            )
    return tokens


def _bytes(path: str | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialError(f"{name} cannot be read: {error.strerror}") from error


def _check_certificates(secrets: Secrets, prefix: str, now: datetime) -> None:
    shown = _certificates(secrets.certificate, f"{prefix}certificate", now)
    trusted = _certificates(secrets.authority, f"{prefix}authority", now)
    if shown and _public(secrets.key, f"{prefix}key") != shown[0].public_key():
        raise CredentialError(f"{prefix}key is not the key of {prefix}certificate")
    if shown and trusted and prefix == "tls_":
        # Between services both ends' certificates are of one authority; at a door each has its own.
        _check_signed(shown, trusted)


def _certificates(pem: bytes | None, name: str, now: datetime) -> "Sequence[x509.Certificate]":
    if pem is None:
        return ()
    found = _parsed(pem, name)
    first = found[0]
    if first.not_valid_after_utc <= now:
        raise CredentialError(f"{name} expired at {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if first.not_valid_before_utc > now:
        raise CredentialError(
            f"{name} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        )
    return found


def _parsed(pem: bytes, name: str) -> "Sequence[x509.Certificate]":
    # Imported here, because most processes on one machine have no certificates.
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CredentialError(f"{name} holds no certificate in PEM") from error


def _public(pem: bytes | None, name: str) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem or b"", password=None).public_key()
    except (ValueError, TypeError) as error:  # a TypeError asks for the password of the key
        raise CredentialError(f"{name} holds no private key in PEM without a password") from error


def _check_signed(
    shown: "Sequence[x509.Certificate]", trusted: "Sequence[x509.Certificate]"
) -> None:
    """Refuses a chain of which no certificate is signed by a trusted one."""
    if not any(_signed_by(one, authority) for one in shown for authority in trusted):
        raise CredentialError("tls_certificate is not signed by tls_authority")


def _signed_by(one: "x509.Certificate", authority: "x509.Certificate") -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        one.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
