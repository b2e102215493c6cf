"""What an export says it takes, and its refusal of a disk that is too small."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from deploy.export import exporter, needs
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.checkpoint.hub import Located
from deploy.export.errors import ExportError
from deploy.export.options import ExportOptions
from deploy.export.progress import ExportProgress
from tests.support.bundles import bundle, checkpoint

GIB = 1024**3


@pytest.fixture(scope="module")
def tied() -> Checkpoint:
    return Checkpoint.open(checkpoint("tied"))


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_the_disk_it_asks_for_holds_the_bundle_it_writes(tied: Checkpoint) -> None:
    made = bundle("tied", "int4")
    written = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    needed = needs.need(tied, ExportOptions())
    # Graphs and settings of tiny models are larger than their weights; the spare room is for them.
    assert written <= needed.disk_bytes <= 3 * written + 2 * needs.SPARE_BYTES


def test_float32_needs_more_than_int4_and_quality_more_than_none(tied: Checkpoint) -> None:
    int4 = needs.need(tied, ExportOptions())
    fp32 = needs.need(tied, ExportOptions(precision="fp32"))
    assert fp32.memory_bytes > int4.memory_bytes
    assert needs.need(tied, ExportOptions(quality=True)) == int4  # small models are measured anyway


def test_too_little_disk_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk_of(monkeypatch, 1000)
    source = Located(path=checkpoint("tied"), model_id="tied", revision=None)
    with (
        ExportProgress(Console(file=io.StringIO())) as progress,
        pytest.raises(ExportError, match="make room"),
    ):
        exporter.export(source, tmp_path / "bundle", ExportOptions(), progress)
    left = [file.name for file in tmp_path.rglob("*") if file.is_file()]
    assert left == ["export.json"]


def test_what_lies_there_already_is_not_needed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk_of(monkeypatch, 4 * GIB)
    needed = needs.Need(disk_bytes=6 * GIB, memory_bytes=1, work_bytes=80 * 60 * 1_000_000)
    with pytest.raises(ExportError, match=r"needs 6\.0 GiB"):
        needs.described(needed, tmp_path, there=0)
    text = needs.described(needed, tmp_path, there=3 * GIB)
    assert "needs 3.0 GiB of disk (4.0 GiB free)" in text
    assert "takes about 35 s" in text


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needed = needs.Need(disk_bytes=1, memory_bytes=1 << 60, work_bytes=0)
    assert "which is not enough" in needs.described(needed, tmp_path, there=0)


def test_the_bar_of_all_counts_every_stage_and_those_that_are_skipped() -> None:
    progress = ExportProgress(Console(file=io.StringIO()))
    progress.expect(100)
    progress.skip(30)
    with progress.stage("one", 20) as advance:
        advance(15)
    whole = progress._progress.tasks[0]
    assert (whole.description, whole.total, whole.completed) == ("all", 100, 45)
