"""`tandem bench`: what it shows, and a server that runs already."""

import io

import pytest
from rich.console import Console

from deploy.commands import bench
from deploy.terminal.screen import CommandError
from tests.unit.deploy.fake_gateway import FakeGateway

LOAD = bench.Load(width=64, height=48, tokens=4, runs=2)
MEMORY = bench.Memory(rss_mib=12_345.6, pss_mib=10_234.5, processes=21)
TIERS = ("vision", "decoder", "gateway")


def shown(report: bench.Report) -> str:
    terminal = Console(file=io.StringIO(), width=80)
    bench.show(terminal, report)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def report() -> bench.Report:
    return bench.Report(
        load=LOAD,
        prompt_tokens=800,
        completion_tokens=64,
        stages_ms=dict.fromkeys(bench.STAGES, 123456.0),
        tokens_per_second=12.5,
        startup_s=dict.fromkeys(TIERS, 321.5),
        memory_ready=dict.fromkeys(TIERS, MEMORY),
        memory_after=dict.fromkeys(TIERS, MEMORY),
    )


def test_every_heading_and_figure_is_whole_at_80_columns() -> None:
    text = shown(report())
    headings = [stage.replace("_", " ") for stage in bench.STAGES]
    headings += ["decode speed", *TIERS, "start-up", "RSS ready", "PSS after", "processes"]
    assert [heading for heading in headings if heading not in text] == []
    assert "123,456 ms" in text
    assert "12,346 MiB" in text
    assert "…" not in text


def test_a_running_server_is_measured_with_images_it_has_not_seen() -> None:
    with FakeGateway(["a b c d"] * 6) as gateway:
        reports = [bench.run_against(gateway.address, LOAD, api_key="key") for _ in range(2)]
    images = {request.messages[0].content[0].image for request in gateway.requests}
    assert len(images) == 6  # a warm-up and two runs, twice
    assert all(metadata["authorization"] == "Bearer key" for metadata in gateway.metadata)
    assert reports[0].stages_ms["first_token"] == 250.0
    assert reports[0].completion_tokens == 4
    assert "RSS" not in shown(reports[0])


def test_no_server_to_measure_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match="tandem bench BUNDLE"):
        bench.run_against("127.0.0.1:1", LOAD, api_key=None)
