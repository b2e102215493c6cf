"""An export's working folder: what is remembered, what is refused, and when it is a bundle."""

from pathlib import Path

import pytest

from deploy.export.errors import ExportError
from deploy.export.manifest import entries_of
from deploy.export.partial import PartialBundle
from protos.bundle.manifest import Bundle, BundleError


def write_stage(partial: PartialBundle, stage: str = "processor") -> None:
    folder = partial.path / stage
    folder.mkdir()
    (folder / "file").write_bytes(b"data")
    partial.finish(stage, entries_of(partial.path, [f"{stage}/file"]))


def test_a_finished_stage_is_remembered_by_the_next_export(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as first:
        write_stage(first)
    with PartialBundle(tmp_path / "bundle", "key") as second:
        assert second.finished("processor")
        assert not second.finished("vision")
        assert second.files()["processor/file"].size == 4


def test_other_inputs_start_over(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as first:
        write_stage(first)
    with PartialBundle(tmp_path / "bundle", "other") as second:
        assert not second.finished("processor")
        assert not (second.path / "processor").exists()


def test_a_stage_with_a_missing_or_cut_file_is_done_again(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as partial:
        write_stage(partial)
        (partial.path / "processor" / "file").write_bytes(b"da")
        assert not partial.finished("processor")
        (partial.path / "processor" / "file").unlink()
        assert not partial.finished("processor")


def test_a_damaged_state_file_starts_over(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as first:
        write_stage(first)
        (first.path / "export.json").write_text('{"key": "k')
    with PartialBundle(tmp_path / "bundle", "key") as second:
        assert not second.finished("processor")


def test_two_exports_cannot_write_one_bundle(tmp_path: Path) -> None:
    with (
        PartialBundle(tmp_path / "bundle", "key"),
        pytest.raises(ExportError, match="another export is writing"),
        PartialBundle(tmp_path / "bundle", "key"),
    ):
        pass


def test_an_existing_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with (
        pytest.raises(ExportError, match="exists already"),
        PartialBundle(tmp_path / "bundle", "key"),
    ):
        pass
    assert not (tmp_path / "bundle.partial").exists()


def test_a_target_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as partial:
        (tmp_path / "bundle").mkdir()
        with pytest.raises(ExportError, match="exists already"):
            partial.publish()
    assert list((tmp_path / "bundle").iterdir()) == []


def test_publishing_leaves_the_bundle_and_nothing_else(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as partial:
        write_stage(partial)
        partial.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["processor"]


def test_an_unfinished_folder_does_not_open_as_a_bundle(tmp_path: Path) -> None:
    with PartialBundle(tmp_path / "bundle", "key") as partial:
        write_stage(partial)
        with pytest.raises(BundleError):
            Bundle.open(partial.path)
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / "bundle")
