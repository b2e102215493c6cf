"""Certificates of `tandem certificates` for tests, and the settings that name them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.certificates import issue
from protos.wire.credentials import Credentials

HOST = "127.0.0.1"


def made(folder: Path, host: str = HOST, *, days: float = 2, ago: float = 0) -> Credentials:
    """Credentials of a host, made now or some days ago; again in the same folder: renewed."""
    issued = issue(folder, [host], days=days, now=datetime.now(UTC) - timedelta(days=ago))
    return of(issued[0].folder)


def of(folder: Path) -> Credentials:
    """What a service with a host's folder shows and asks for."""
    return Credentials(
        tls=True,
        certificate=str(folder / "certificate.pem"),
        key=str(folder / "key.pem"),
        authority=str(folder / "authority.pem"),
        token_file=str(folder / "token"),
    )
