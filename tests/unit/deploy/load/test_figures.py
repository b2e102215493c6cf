"""Figures, tables and plots of records made by hand."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from deploy.load import plot
from deploy.load.figures import Figures, Spread, figures
from deploy.load.plan import LoadPlan
from deploy.load.records import Answer, Record
from deploy.load.show import histogram, show

PLAN = LoadPlan(url="http://127.0.0.1:8000/v1", concurrency=2, ttft_ms=500.0, itl_ms=100.0)


def record(
    due: float,
    moments: tuple[float, ...],
    *,
    sent: float | None = None,
    tokens: int | None = None,
    error: str | None = None,
) -> Record:
    ended = moments[-1] if moments else due + 0.01
    answer = Answer(
        moments=moments, ended_s=ended, prompt_tokens=7, completion_tokens=tokens, error=error
    )
    return Record(due_s=due, sent_s=due if sent is None else sent, answer=answer)


# Within both targets; first token late; tokens slow; and two failures, one of them in its stream.
GOOD = record(0.0, (0.25, 0.3125, 0.375), tokens=3)
LATE = record(0.0, (2.0, 2.0625), sent=1.5, tokens=2)
SLOW = record(2.0, (2.25, 3.25, 4.0), tokens=3)
REFUSED = record(3.0, (), error="HTTP 429")
BROKEN = record(3.0, (3.5, 3.75), tokens=2, error="cut off")
ALL = [GOOD, LATE, SLOW, REFUSED, BROKEN]


def text_of(found: Figures, records: list[Record] = ALL) -> str:
    terminal = Console(file=io.StringIO(), width=80)
    show(terminal, found, records)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_times_are_of_whole_answers_and_count_from_when_they_were_due() -> None:
    found = figures(PLAN, "small", ALL, unfinished=1)
    assert (found.answered, found.unfinished, found.errors) == (3, 1, {"HTTP 429": 1, "cut off": 1})
    assert found.ttft_ms == Spread(mean=2500 / 3, p50=250, p90=2000, p99=2000, most=2000)
    assert found.itl_ms == Spread(mean=387.5, p50=62.5, p90=1000, p99=1000, most=1000)
    assert found.per_token_ms is not None and found.per_token_ms.most == 875.0
    assert found.e2e_ms is not None and found.e2e_ms.most == 2062.5
    assert found.lag_ms is not None and found.lag_ms.most == 1500.0
    assert (found.duration_s, found.requests_per_s, found.tokens_per_s) == (4.0, 0.75, 2.0)
    assert (found.completion_tokens, found.prompt_tokens) == (8, 21)


@pytest.mark.parametrize(
    ("targets", "good"),
    [
        ((500.0, 100.0), 1),
        ((500.0, None), 2),
        ((None, 100.0), 2),
        ((None, None), 3),
        ((0.0, 0.0), 0),
    ],
)
def test_goodput_counts_whole_answers_within_both_targets(
    targets: tuple[float | None, float | None], good: int
) -> None:
    plan = LoadPlan(url="", ttft_ms=targets[0], itl_ms=targets[1])
    found = figures(plan, "small", ALL)
    assert (found.good, found.goodput_per_s) == (good, good / 4.0)


def test_a_server_that_joins_tokens_is_counted_by_its_usage() -> None:
    joined = record(0.0, (1.0, 2.0), tokens=11)
    found = figures(PLAN, "small", [joined])
    assert found.tokens_counted_by == "usage"
    assert found.completion_tokens == 11
    assert found.per_token_ms is not None and found.per_token_ms.p50 == 100.0


def test_without_usage_pieces_count_and_the_table_says_so() -> None:
    found = figures(PLAN, "small", [record(0.0, (1.0, 2.0))])
    assert (found.tokens_counted_by, found.completion_tokens) == ("chunks", 2)
    assert "tells no usage" in text_of(found)
    assert "tells no usage" not in text_of(figures(PLAN, "small", ALL))


def test_a_load_stopped_before_any_answer_has_no_figures_and_shows_that() -> None:
    found = figures(PLAN, "small", [], unfinished=2)
    assert (found.answered, found.requests_per_s, found.ttft_ms) == (0, 0.0, None)
    assert "2 were not finished" in text_of(found, [])


def test_all_is_whole_at_80_columns_and_names_what_failed() -> None:
    text = text_of(figures(PLAN, "small", ALL))
    for part in ("time to first token", "goodput 0.25 a second: 1 of 5", "1 failed: HTTP 429"):
        assert part in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_client_that_sends_late_is_told_of_in_an_open_loop() -> None:
    plan = LoadPlan(url="", rate=5.0)
    assert "were sent late" in text_of(figures(plan, "small", ALL))
    assert "were sent late" not in text_of(figures(plan, "small", [GOOD]))


def test_json_is_one_line_with_the_plan() -> None:
    text = figures(PLAN, "small", ALL).to_json()
    assert "\n" not in text
    assert json.loads(text)["plan"]["ttft_ms"] == 500.0


def test_a_histogram_counts_every_value_once() -> None:
    lines = histogram([0.1, 0.1, 0.2, 1.3])
    assert [line.split()[-1] for line in lines[1:] if len(line.split()) > 1] == ["2", "1", "1"]
    assert histogram([0.1]) == histogram([]) == []


@pytest.mark.parametrize("records", [ALL, [GOOD], [REFUSED], []])
def test_a_plot_is_a_png_whatever_there_is(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "plot.png"
    plot.write(path, figures(PLAN, "small", records), records)
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    assert {(0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00), (0xD5, 0x5E, 0x00)} <= colours
