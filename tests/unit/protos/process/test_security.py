"""A service that others reach starts with what keeps strangers out, or when it is told to."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decoder_service.config import DecoderConfig
from gateway.config import GatewayConfig
from protos.process.security import HopSettings, check_exposure, is_loopback
from protos.process.settings import SettingError, load
from tests.support.certificates import made
from vision_service.config import VisionConfig

TOKEN = "a-token-of-enough-characters"
TLS = {"tls_certificate": "c.pem", "tls_key": "k.pem", "tls_authority": "a.pem"}
DOOR = {"door_certificate": "c.pem", "door_key": "k.pem"}
TIERS = (VisionConfig, DecoderConfig)
SERVICES: tuple[Any, ...] = (*TIERS, GatewayConfig)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.0.0.5", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.1.2.3", False),
        ("2001:db8::1", False),
    ],
)
def test_loopback_is_what_this_machine_alone_reaches(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize("config", SERVICES)
def test_a_service_on_loopback_needs_nothing(config: Any) -> None:
    check_exposure(config(bundle="b"))


@pytest.mark.parametrize("config", TIERS)
@pytest.mark.parametrize(
    ("given", "missing"),
    [({}, "tls_certificate and token_file are"), (TLS, "token_file is"), ({"token": TOKEN}, "tls")],
)
def test_a_tier_that_others_reach_needs_tls_and_token(
    config: Any, given: dict[str, str], missing: str
) -> None:
    with pytest.raises(SettingError, match=f"^host is '0.0.0.0', .*{missing}.*allow_insecure"):
        check_exposure(config(bundle="b", host="0.0.0.0", **given))


@pytest.mark.parametrize("config", TIERS)
def test_a_tier_with_both_is_open_to_others(config: Any) -> None:
    check_exposure(config(bundle="b", host="0.0.0.0", token=TOKEN, **TLS))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "door_certificate and api_key are"),
        ({"api_key": "k", "token": TOKEN, **TLS}, "door_certificate is"),
        (DOOR, "api_key is"),
    ],
)
def test_doors_that_others_reach_need_tls_and_a_key(given: dict[str, str], missing: str) -> None:
    with pytest.raises(SettingError, match=f"^host is '::', .*{missing} not set.*allow_insecure"):
        check_exposure(GatewayConfig(bundle="b", host="::", **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("known", [{"api_key": "k"}, {"door_authority": "a.pem"}])
def test_doors_that_know_their_clients_are_open_to_others(known: dict[str, str]) -> None:
    check_exposure(GatewayConfig(bundle="b", host="::", **DOOR, **known))  # type: ignore[arg-type]


@pytest.mark.parametrize("config", SERVICES)
def test_who_allows_it_is_told_what_is_open(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    check_exposure(config(bundle="b", host="0.0.0.0", allow_insecure=True))
    assert "host 0.0.0.0 is open without" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tls_certificate": "c", "tls_key": "k"}, "tls_authority is not set"),
        ({"tls_authority": "a"}, "tls_certificate is not set"),
        ({"token": TOKEN, "token_file": "t"}, "token and token_file are both set"),
        ({"token": "short"}, "token must hold tokens of at least 16"),
    ],
)
@pytest.mark.parametrize("config", SERVICES)
def test_settings_that_say_half_of_it_are_refused(
    config: Any, given: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        config(bundle="b", **given)


@pytest.mark.parametrize(
    "given", [{"door_key": "k"}, {"door_certificate": "c"}, {"door_authority": "a"}]
)
def test_a_door_needs_certificate_and_key(given: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="^door_"):
        GatewayConfig(bundle="b", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "prefix"),
    [(VisionConfig, "VISION"), (DecoderConfig, "DECODER"), (GatewayConfig, "GATEWAY")],
)
def test_every_service_reads_the_same_names_from_its_environment(config: Any, prefix: str) -> None:
    environ = {f"{prefix}_{name.upper()}": value for name, value in TLS.items()}
    environ |= {f"{prefix}_BUNDLE": "b", f"{prefix}_TOKEN": TOKEN}
    read: HopSettings = load(config, program="p", prefix=prefix, argv=[], environ=environ)
    assert read.credentials.tls and read.credentials.token == TOKEN
    assert read.metrics_host == "127.0.0.1"


def test_tiers_may_share_a_name() -> None:
    config = GatewayConfig(bundle="b", tls_tier_name="tiers.example", token=TOKEN)
    assert config.tier_credentials == replace(config.credentials, server_name="tiers.example")
    assert GatewayConfig(bundle="b").tier_credentials.server_name is None


def started(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "decoder_service", f"--bundle={folder}", "--port=0"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60)


def test_a_process_ends_with_one_line_that_names_the_setting(tmp_path: Path) -> None:
    refused = started(tmp_path, "--host=0.0.0.0")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "decoder_service: host is '0.0.0.0', which other machines can reach, and tls_certificate"
        " and token_file are not set"
    )
    old = made(tmp_path, days=1, ago=2)
    files = [f"--tls-{name}={getattr(old, name)}" for name in ("certificate", "key", "authority")]
    expired = started(tmp_path, *files)
    assert expired.returncode == 2
    assert "decoder_service: tls_certificate expired at" in expired.stderr.splitlines()[-1]
