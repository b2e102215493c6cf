"""`tandem certificates`: what it writes, and what stays when it is run again."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from deploy.certificates import issue, run
from deploy.terminal.screen import CommandError
from protos.wire.credentials import read_secrets
from tests.support.certificates import of


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_each_host_gets_what_a_service_needs(tmp_path: Path) -> None:
    first, second = issue(tmp_path, ["decoder-1,10.0.0.5", "2001:db8::7"])
    assert first.names == ("decoder-1", "10.0.0.5")
    assert second.folder == tmp_path / "2001:db8::7"
    secrets = [read_secrets(of(host.folder)) for host in (first, second)]
    assert secrets[0].authority == secrets[1].authority
    assert secrets[0].tokens == secrets[1].tokens
    assert secrets[0].key != secrets[1].key
    assert "authority-key.pem" not in held(first.folder)


def test_another_library_accepts_what_was_made(tmp_path: Path) -> None:
    (host,) = issue(tmp_path, ["decoder-1"])
    checked = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname"]
        + ["decoder-1", "-CAfile", str(tmp_path / "authority.pem")]
        + [str(host.folder / "certificate.pem")],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    issue(tmp_path / "c", ["a", "b"])
    for path in (tmp_path / "c").rglob("*"):
        secret = path.is_dir() or path.name in ("key.pem", "authority-key.pem", "token")
        assert path.stat().st_mode & 0o077 == (0 if secret else 0o044), path


def test_hosts_are_renewed_by_the_same_authority_under_the_same_names(tmp_path: Path) -> None:
    made = issue(tmp_path, ["decoder-1,10.0.0.5", "*.vision.example"])
    own, before = held(tmp_path), held(made[0].folder)
    again = issue(tmp_path, days=30)
    assert {host.folder: set(host.names) for host in again} == {
        host.folder: set(host.names) for host in made
    }
    assert held(tmp_path) == own
    after = held(made[0].folder)
    assert (
        after["certificate.pem"] != before["certificate.pem"]
        and after["key.pem"] != (before["key.pem"])
    )
    assert (after["authority.pem"], after["token"]) == (before["authority.pem"], before["token"])
    assert again[0].until < datetime.now(UTC) + timedelta(days=31)


@pytest.mark.parametrize("host", ["", ",", "a b", "-a", "a..b", "a/b", "..", "10.0.0.999:1", "+.x"])
def test_what_is_no_host_is_refused_before_anything_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(CommandError):
        issue(tmp_path / "c", ["good", host])
    assert not (tmp_path / "c").exists()


def test_an_authority_that_ended_or_lost_its_key_signs_nothing(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no host is named"):
        issue(tmp_path / "c")
    issue(tmp_path / "c", ["a"])
    with pytest.raises(CommandError, match="has expired"):
        issue(tmp_path / "c", ["a"], now=datetime.now(UTC) + timedelta(days=4000))
    issue(tmp_path / "d", ["a"])
    (tmp_path / "d" / "authority-key.pem").replace(tmp_path / "c" / "authority-key.pem")
    with pytest.raises(CommandError, match="is not the key of"):
        issue(tmp_path / "c", ["a"])
    with pytest.raises(CommandError, match="No such file"):
        issue(tmp_path / "d", ["a"])


def test_the_command_says_what_goes_where(tmp_path: Path) -> None:
    console = Console(record=True, width=300)
    run(console, tmp_path / "c", ["decoder-1,10.0.0.5"], days=10)
    said = console.export_text()
    assert "for decoder-1, 10.0.0.5, until 20" in said
    assert "--tls-certificate certificate.pem" in said
