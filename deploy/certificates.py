"""An authority, certificates of hosts signed by it, and a token: what secures several machines.

    FOLDER/authority.pem, authority-key.pem, token     stay with who runs the machines
    FOLDER/HOST/certificate.pem, key.pem, authority.pem, token     go to that host

Made again in the same folder, certificates are new, and authority, token and names stay.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rich.console import Console

from deploy.terminal.screen import CommandError

AUTHORITY = "authority.pem"
AUTHORITY_KEY = "authority-key.pem"
TOKEN = "token"
CERTIFICATE = "certificate.pem"
KEY = "key.pem"

AUTHORITY_DAYS = 3650
HOST_DAYS = 365
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CLOCK_SKEW = timedelta(minutes=5)  # of a host whose clock is behind

_STAR = "+"  # for the star of *.example in a folder's name; no name holds one

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A host's new files.

    Attributes:
        folder: Where they are.
        names: What the host is called, apart from loopback.
        until: When the certificate ends, UTC.
    """

    folder: Path
    names: tuple[str, ...]
    until: datetime


def run(console: Console, folder: Path, hosts: Sequence[str], *, days: int) -> None:
    """Makes certificates, and says what to do with them.

    Raises:
        CommandError: see `issue`.
    """
    for host in issue(folder, hosts, days=days):
        names = ", ".join(host.names)
        console.print(
            f"{host.folder}  for {names}, until {host.until:%Y-%m-%d}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"Copy each folder to its host, and give every service there --tls-certificate"
        f" {CERTIFICATE} --tls-key {KEY} --tls-authority {AUTHORITY} --token-file {TOKEN}."
        f" {AUTHORITY_KEY} stays here.",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def issue(
    folder: Path,
    hosts: Sequence[str] = (),
    *,
    days: float = HOST_DAYS,
    now: datetime | None = None,
) -> list[Issued]:
    """Makes new certificates, and authority and token where there are none.

    Args:
        folder: Where everything lies; made where it is missing.
        hosts: One entry a host: its names and addresses, comma-separated, the first of which
            names its folder; empty: all hosts that have a folder, with the names they have.
        days: How long the certificates are valid.
        now: When they begin to be, with a time zone; None: now.

    Returns:
        What was made, in the order of `hosts`.

    Raises:
        CommandError: a host has no usable name, there is none, or the authority cannot be
            read, has expired, or a file cannot be written.
    """
    begin = now or datetime.now(UTC)
    try:
        named = [_names(host) for host in hosts] or _known(folder)
        if not named:
            raise CommandError("no host is named, and the folder has none yet")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _authority(folder, begin)
        if not (folder / TOKEN).exists():
            _write(folder / TOKEN, secrets.token_urlsafe(32).encode() + b"\n")
        return [_host(folder, names, authority, begin, days) for names in named]
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _names(host: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in host.split(",") if name.strip())
    if not names:
        raise CommandError("a host has no name")
    for name in names:
        if _address(name) is None and not _NAME.fullmatch(name):
            raise CommandError(f"{name!r} is neither a host's name nor an address")
    return names


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _known(folder: Path) -> list[tuple[str, ...]]:
    """The names of every host that has a certificate, as it has them."""
    return [_named(path) for path in sorted(folder.glob(f"*/{CERTIFICATE}"))]


def _named(path: Path) -> tuple[str, ...]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CommandError(f"{path} holds no certificate of a host") from error
    found = [*names.get_values_for_type(x509.DNSName)]
    found += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    # The one that names the folder comes first; every host has those of loopback anyway.
    first = path.parent.name.replace(_STAR, "*")
    return (first, *sorted(set(found) - {first, *LOOPBACK}))


def _authority(folder: Path, begin: datetime) -> _Authority:
    if not (folder / AUTHORITY).exists():
        return _new_authority(folder, begin)
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise CommandError(f"{AUTHORITY} or {AUTHORITY_KEY} cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        raise CommandError(f"{AUTHORITY_KEY} is not the key of {AUTHORITY}")
    if certificate.not_valid_after_utc <= begin:
        raise CommandError(f"{AUTHORITY} has expired: begin anew in another folder")
    return _Authority(certificate, key)


def _new_authority(folder: Path, begin: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # A number of its own in its name keeps two authorities that a host trusts apart.
    name = _common_name(f"Tandem authority {secrets.token_hex(4)}")
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_SKEW)
        .not_valid_after(begin + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / AUTHORITY_KEY, _key_pem(key))
    _write(folder / AUTHORITY, _pem(certificate), mode=0o644)
    return _Authority(certificate, key)


def _host(
    folder: Path, names: tuple[str, ...], authority: _Authority, begin: datetime, days: float
) -> Issued:
    own = folder / names[0].replace("*", _STAR)
    own.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(begin + timedelta(days=days), authority.certificate.not_valid_after_utc)
    certificate = _signed(names, key, authority, begin, until)
    _write(own / AUTHORITY, _pem(authority.certificate), mode=0o644)
    _write(own / TOKEN, (folder / TOKEN).read_bytes())
    _write(own / KEY, _key_pem(key))
    _write(own / CERTIFICATE, _pem(certificate), mode=0o644)
    return Issued(folder=own, names=names, until=certificate.not_valid_after_utc)


def _signed(
    names: tuple[str, ...],
    key: ec.EllipticCurvePrivateKey,
    authority: _Authority,
    begin: datetime,
    until: datetime,
) -> x509.Certificate:
    """A certificate for both ends of a connection: services are servers and clients."""
    alternatives = [_general_name(name) for name in dict.fromkeys((*names, *LOOPBACK))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(names[0]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # 64: X.520's limit


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a file whole or not at all: a service may read the folder at any moment."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    os.replace(beside, path)
