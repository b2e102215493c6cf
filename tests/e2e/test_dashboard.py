"""The Grafana dashboard against what the three services really tell Prometheus.

Where a `prometheus` is installed (Debian's package of that name), it scrapes the services and runs
every query; the names and labels in them are compared with the services' texts everywhere.
"""

import asyncio
import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.process.server import bind
from protos.wire.errors import Overloaded
from tests.support.three_services import SMALL_IMAGE, WIDER_IMAGE, ThreeServices, three_services

DASHBOARD = Path(__file__).parents[2] / "deploy" / "dashboards" / "tandem.json"
PROMETHEUS = shutil.which("prometheus")

# Samples that exist once what they count has happened, which it does not here; and those of keys
# and certificates, of which these services have none: test_certificates.py looks at the latter.
NEVER_HERE = {
    "tandem:decoder_request_failures_total",
    "tandem:gateway_key_refused_total",
    "tandem:gateway_moves_total",
    *(f"tandem:{tier}_certificate_left_seconds" for tier in ("gateway", "vision", "decoder")),
}
OF_PROMETHEUS = {"instance", "job", "le"}  # labels that it adds, and that of buckets


def panels() -> list[Any]:
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def queries() -> list[str]:
    """Every query, with Grafana's variables as a dashboard would fill them."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [each.replace("$__rate_interval", "20s").replace("$model", ".*") for each in found]


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:vllm|tandem):[a-z0-9_]+", query))


def labels_in(query: str) -> set[str]:
    grouped = re.findall(r"\bby \(([^)]*)\)", query)
    selected = re.findall(r"[{,]\s*([a-z_]+)\s*=", query)
    return {label.strip() for group in grouped for label in group.split(",")} | set(selected)


async def exposed(services: ThreeServices) -> dict[str, set[str]]:
    """Every sample's name, and its labels."""
    found: dict[str, set[str]] = {}
    for port in services.metrics_ports:
        text = await asyncio.to_thread(get, f"http://127.0.0.1:{port}/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10.0) as answer:
        body: str = answer.read().decode()
        return body


async def ask(services: ThreeServices) -> None:
    """A question about an image, and one that fails in the vision tier."""
    await services.ask(SMALL_IMAGE)
    services.encoders.error = Overloaded("the tower has enough to do")
    with pytest.raises(openai.APIError):
        await services.ask(WIDER_IMAGE)
    services.encoders.error = None


async def test_every_name_and_label_of_the_dashboard_is_told_by_a_service() -> None:
    async with three_services() as services:
        await ask(services)
        found = await exposed(services)
    for query in queries():
        names = names_in(query) - NEVER_HERE
        assert names <= found.keys(), query
        labels = {label for name in names for label in found[name]} | OF_PROMETHEUS
        assert labels_in(query) <= labels or not names, query


def test_the_dashboard_has_what_grafana_wants() -> None:
    """Source: Grafana's reference of the dashboard JSON model."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "panels", "schemaVersion", "time", "templating"} <= dashboard.keys()
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    places = [cell for each in dashboard["panels"] for cell in cells(each["gridPos"])]
    assert len(set(places)) == len(places), "panels overlap"
    for panel in panels():
        assert panel["title"] and panel["description"] and panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
    titles = " ".join(each["title"] for each in dashboard["panels"])
    for word in ("first token", "between tokens", "Queue", "KV cache", "Tiers", "Images", "Errors"):
        assert word in titles
    for word in ("set aside", "moved", "embedding cache", "rate limits", "Certificates"):
        assert word in titles


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    for column in range(place["x"], place["x"] + place["w"]):
        for row in range(place["y"], place["y"] + place["h"]):
            yield column, row


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus is installed")
async def test_prometheus_answers_every_query(tmp_path: Path) -> None:
    async with three_services() as services:
        await ask(services)
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            str(PROMETHEUS),
            f"--config.file={config(tmp_path, services.metrics_ports)}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            base = f"http://127.0.0.1:{port}/api/v1/query?query="
            await scraped(base, "sum(up)", 3.0)
            await ask(services)
            await scraped(base, "min(count_over_time(up[1m]))", 3.0)
            for query in queries():
                answer = await asked(base, query)
                assert answer or names_in(query) & NEVER_HERE, query
        finally:
            process.terminate()
            await process.wait()


def free_port() -> int:
    with bind("127.0.0.1", 0) as listening:
        port: int = listening.getsockname()[1]
        return port


def config(folder: Path, ports: tuple[int, ...]) -> Path:
    """Scrapes these ports, once a second; JSON is YAML, too."""
    targets = [f"127.0.0.1:{port}" for port in ports]
    job = {"job_name": "tandem", "static_configs": [{"targets": targets}]}
    file = folder / "prometheus.yml"
    file.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    return file


async def asked(base: str, query: str) -> list[Any]:
    url = base + urllib.parse.quote(query)
    answer = json.loads(await asyncio.to_thread(get, url))
    assert answer["status"] == "success"
    found: list[Any] = answer["data"]["result"]
    return found


async def scraped(base: str, query: str, least: float) -> None:
    """Waits until a query gives a number."""
    for _ in range(300):
        await asyncio.sleep(0.1)
        try:
            found = await asked(base, query)
        except OSError:  # it is still starting
            continue
        if found and float(found[0]["value"][1]) >= least:
            return
    raise AssertionError(f"{query} never came to {least}")
