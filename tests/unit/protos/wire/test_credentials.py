"""Files of credentials: what is wrong with them is told by the setting, and changes are seen."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from protos.wire.credentials import (
    CredentialError,
    CredentialFiles,
    Credentials,
    read_secrets,
    read_tokens,
)
from tests.support.certificates import made


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return made(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return made(tmp_path_factory.mktemp("other"))


def with_file(credentials: Credentials, field: str, path: Any) -> Credentials:
    changed: dict[str, Any] = {field: path}
    return replace(credentials, **changed)


def test_whole_files_are_read(own: Credentials) -> None:
    secrets = read_secrets(own)
    assert secrets.certificate == Path(own.certificate or "").read_bytes()
    assert secrets.tokens == (Path(own.token_file or "").read_text().strip(),)


@pytest.mark.parametrize("field", ["certificate", "key", "authority"])
def test_a_file_that_is_not_there_is_told_by_its_setting(own: Credentials, field: str) -> None:
    with pytest.raises(CredentialError, match=f"^tls_{field} cannot be read: No such file"):
        read_secrets(with_file(own, field, "/nowhere/secret.pem"))


def test_no_message_holds_a_path(own: Credentials) -> None:
    with pytest.raises(CredentialError) as told:
        read_secrets(replace(own, key="/nowhere/secret.pem"))
    assert "/" not in str(told.value)


@pytest.mark.parametrize("field", ["certificate", "key", "authority"])
def test_a_file_of_something_else_is_told_by_its_setting(own: Credentials, field: str) -> None:
    with pytest.raises(CredentialError, match=f"^tls_{field} holds no "):
        read_secrets(with_file(own, field, own.token_file))


@pytest.mark.parametrize(
    ("days", "words"),
    [(3, "^tls_certificate expired at 20"), (-1, "^tls_certificate is not valid before 20")],
)
def test_a_certificate_out_of_its_time_is_refused(
    own: Credentials, days: float, words: str
) -> None:
    with pytest.raises(CredentialError, match=words):
        read_secrets(own, now=datetime.now(UTC) + timedelta(days=days))


def test_an_authority_out_of_its_time_is_refused(own: Credentials) -> None:
    trusting = replace(own, certificate=None, key=None)
    with pytest.raises(CredentialError, match="^tls_authority expired at"):
        read_secrets(trusting, now=datetime.now(UTC) + timedelta(days=4000))


def test_files_that_do_not_belong_together_are_refused(
    own: Credentials, other: Credentials
) -> None:
    with pytest.raises(CredentialError, match="^tls_key is not the key of tls_certificate"):
        read_secrets(replace(own, key=other.key))
    with pytest.raises(CredentialError, match="^tls_certificate is not signed by tls_authority"):
        read_secrets(replace(own, authority=other.authority))


def test_a_door_may_ask_for_certificates_of_another_authority(
    own: Credentials, other: Credentials
) -> None:
    read_secrets(replace(own, authority=other.authority, prefix="door_"))
    with pytest.raises(CredentialError, match="^door_key is not the key of door_certificate"):
        read_secrets(replace(own, key=other.key, prefix="door_"))


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("short", "at least 16 printable"),
        (" , ", "holds no token"),
        ("long-enough-but-\x07-not-printable", "printable"),
    ],
)
def test_what_is_no_token_is_refused(token: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=f"^token .*{words}"):
        read_tokens(Credentials(token=token))
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(CredentialError, match="^token_file "):
        read_tokens(Credentials(token_file=str(file)))


def test_several_tokens_keep_their_order(tmp_path: Path) -> None:
    first, second = "first-of-the-tokens", "second-of-the-tokens"
    file = tmp_path / "token"
    file.write_text(f"\n {first}\n\n{second} \n")
    assert read_tokens(Credentials(token_file=str(file))) == (first, second)
    assert read_tokens(Credentials(token=f"{first}, {second}")) == (first, second)


def test_changed_files_are_read_again_and_unusable_ones_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files = CredentialFiles(made(tmp_path))
    before = files.current()
    assert files.current() is before
    made(tmp_path)
    renewed = files.current()
    assert renewed.certificate != before.certificate and renewed.authority == before.authority
    key = Path(files.credentials.key or "")
    whole = key.read_bytes()
    key.write_bytes(whole[:40])
    assert files.current() is files.current() is renewed
    assert caplog.text.count("credentials stay as they were: tls_key holds no private key") == 1
    key.unlink()
    assert files.current() is renewed
    key.write_bytes(whole)
    assert files.current().key == whole
