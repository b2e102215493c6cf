"""What operators are told of certificates that end: the gauge of every tier, and the log."""

import asyncio
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import GatewayConfig
from protos.process import certificates
from protos.process.certificates import DAY_S, seconds_left, warn_of_ends, watching
from protos.process.metrics import TierMetrics
from protos.wire.credentials import Credentials, read_secrets
from tests.support.certificates import made

DASHBOARD = Path(__file__).parents[4] / "deploy" / "dashboards" / "tandem.json"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """A certificate that ends in two days."""
    return made(tmp_path_factory.mktemp("certificates"))


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_the_gauge_tells_the_seconds_that_are_left(shown: Credentials) -> None:
    door = replace(shown, prefix="door_")
    metrics = TierMetrics("gateway")
    metrics.watch_certificates([shown, door, Credentials()])
    (family,) = (
        each
        for each in text_string_to_metric_families(metrics.exposition("")[0].decode())
        if each.name == "tandem:gateway_certificate_left_seconds"
    )
    told = {sample.labels["certificate"]: sample.value for sample in family.samples}
    assert told.keys() == {"tls_certificate", "door_certificate"}
    for left_s in told.values():
        assert 1.9 * DAY_S < left_s < 2 * DAY_S


def test_a_renewed_file_is_told_and_one_that_is_gone_left_out(tmp_path: Path) -> None:
    old = made(tmp_path, days=2, ago=1)
    assert seconds_left([old])["tls_certificate"] < DAY_S
    made(tmp_path, days=30)
    assert seconds_left([old])["tls_certificate"] > 29 * DAY_S
    assert old.certificate is not None
    Path(old.certificate).unlink()
    assert seconds_left([old]) == {}


def test_the_first_end_in_the_file_counts(shown: Credentials, tmp_path: Path) -> None:
    sooner = made(tmp_path / "sooner", days=1)
    chain = tmp_path / "chain.pem"
    both = (read_secrets(shown).certificate or b"") + (read_secrets(sooner).certificate or b"")
    chain.write_bytes(both)
    left = seconds_left([replace(shown, certificate=str(chain))])
    assert left["tls_certificate"] < DAY_S


@pytest.mark.parametrize(
    ("days", "words"),
    [(-6.0, None), (0.0, "tls_certificate ends in 2.0 days"), (3.0, "ended 1.0 days ago")],
)
def test_the_log_warns_within_a_week_of_the_end(
    shown: Credentials, caplog: pytest.LogCaptureFixture, days: float, words: str | None
) -> None:
    warn_of_ends([shown, Credentials()], now=later(days))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (words is not None)
    if words is not None:
        assert words in told[0] and caplog.records[0].levelno == logging.WARNING


async def test_the_log_warns_at_the_start_and_again(
    shown: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching([shown], every_s=0.01):
        await asyncio.sleep(0.2)
    count = len(caplog.records)
    assert count > 1
    await asyncio.sleep(0.05)
    assert len(caplog.records) == count
    assert certificates.DAY_S == timedelta(days=1).total_seconds()


def test_a_gateway_shows_its_doors_certificate_too(shown: Credentials) -> None:
    config = GatewayConfig(
        bundle="-",
        vision="127.0.0.1:1",
        decoder="127.0.0.1:2",
        door_certificate=shown.certificate,
        door_key=shown.key,
    )
    assert list(seconds_left(config.shown)) == ["door_certificate"]


def test_the_dashboard_shows_every_tiers() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = " ".join(each["expr"] for panel in panels for each in panel.get("targets", ()))
    for tier in ("gateway", "vision", "decoder"):
        assert f"tandem:{tier}_certificate_left_seconds" in queries
