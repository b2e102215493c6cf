"""Options and sources that cannot work are refused before any work."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.export.__main__ import main
from deploy.export.checkpoint import hub
from deploy.export.errors import ExportError
from deploy.export.options import ExportOptions


def test_the_defaults_are_fine() -> None:
    ExportOptions().check()


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("precision", "int2", "--precision"),
        ("block_size", 24, "--block-size"),
        ("accuracy_level", 3, "--accuracy-level"),
    ],
)
def test_an_unknown_choice_is_named(field: str, value: object, match: str) -> None:
    with pytest.raises(ExportError, match=match):
        replace(ExportOptions(), **{field: value}).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (ExportOptions(), True),
        (ExportOptions(precision="int8"), False),
        (ExportOptions(precision="fp32"), False),
        (ExportOptions(accuracy_level=0), False),
    ],
)
def test_graphs_for_tandems_operators_are_made_where_those_compute_what_was_asked(
    options: ExportOptions, wanted: bool
) -> None:
    assert options.allows_kernel_graphs is wanted


@pytest.mark.parametrize("source", ["nowhere", "/no/such/folder", "a/b/c", "../x/y", "a/b;c", ""])
def test_a_source_that_is_neither_folder_nor_hub_id_is_refused(source: str) -> None:
    with pytest.raises(ExportError, match="neither a folder nor a hub id"):
        hub.locate(source)


def test_a_folder_is_named_after_itself_unless_told_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    assert hub.locate(str(folder)).model_id == "my-model"
    assert hub.locate(str(folder), model_id="served").model_id == "served"
    assert hub.locate(str(folder)).revision is None


def test_a_revision_needs_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--revision"):
        hub.locate(str(tmp_path), revision="main")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "modeling.py", "training_args.bin", "x.pkl"]
)
def test_the_hub_patterns_let_no_pickle_and_no_code_through(name: str) -> None:
    assert not any(Path(name).match(pattern) for pattern in hub.PATTERNS)


def test_the_command_ends_with_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(tmp_path / "bundle")]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: the checkpoint lacks config.json\n"
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
