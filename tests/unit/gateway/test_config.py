"""The gateway's settings."""

import pytest

from gateway.config import GatewayConfig
from protos.process.settings import SettingError


def test_only_loopback_names_are_served_on_loopback() -> None:
    assert GatewayConfig(bundle="b").served_hosts == ("127.0.0.1", "localhost", "::1")
    assert GatewayConfig(bundle="b", host="0.0.0.0").served_hosts is None
    named = GatewayConfig(bundle="b", allowed_hosts="a.example, b.example")
    assert named.served_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_in_flight": 0},
        {"http_port": -1},
        {"decoder": " , "},
        {"prepare_threads": 0},
        {"cors_origins": "chat.example"},
        {"cors_origins": "https://chat.example/"},
        {"cors_origins": "https://a.example, HTTPS://B.example"},
        {"cors_origins": "null"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int | str]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        GatewayConfig(bundle="b", **wrong)  # type: ignore[arg-type]


def test_origins_of_web_pages_are_listed() -> None:
    assert GatewayConfig(bundle="b").allowed_origins == ()
    listed = GatewayConfig(bundle="b", cors_origins="https://a.example, http://[::1]:3000,*")
    assert listed.allowed_origins == ("https://a.example", "http://[::1]:3000", "*")


def test_beyond_loopback_admin_requests_need_a_key() -> None:
    with pytest.raises(SettingError, match="admin_key"):
        GatewayConfig(bundle="b", admin_port=1, admin_host="0.0.0.0")
    with pytest.raises(SettingError, match="admin_key"):
        GatewayConfig(bundle="b", admin_port=1, admin_key="")
    GatewayConfig(bundle="b", admin_port=1, admin_host="0.0.0.0", admin_key="k")
