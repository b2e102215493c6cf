"""`tandem plan`: its table, its JSON, its drawing, the example of the documents, bad input."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from planner import __main__ as command
from planner.load import Load
from tests.support.readme import commands
from tests.unit.planner.costs_file import write_costs

SHORT = ["--seconds", "30", "--warm-up-s", "5", "--sizes", "448x448", "--images", "0.5"]


def run(*arguments: str | Path) -> int:
    """Runs the command; returns its exit code."""
    return command.main([str(argument) for argument in arguments])


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    return write_costs(tmp_path / "costs.json")


def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (words,) = [words for words in commands() if words[:2] == ["tandem", "plan"]]
    write_costs(tmp_path / "costs.json")
    monkeypatch.chdir(tmp_path)
    assert run(*words[2:], "--seconds", "90", "--no-curve") == 0
    assert "meets the targets" in capsys.readouterr().out


def test_the_plan_is_a_table_of_80_columns_and_a_curve_that_marks_it(
    costs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(costs, *SHORT, "--replicas", "2", "--decoders", "2") == 0
    text = capsys.readouterr().out
    assert "2 encoder replicas and 2 decoders: meets the targets" in text
    assert "2:2" in text and "1:3" in text and "3:1" in text
    assert text.count("◀") == 1
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_plan_has_the_cores_of_gateways_and_fronts_where_their_costs_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    processors = {"gateway": {"token_s": 0.03}, "front": {"image_s": 0.1}}
    path = write_costs(tmp_path / "with.json", processors=processors)
    fixed = ("--replicas", "2", "--decoders", "2", "--no-curve")
    assert run(path, *SHORT, *fixed) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "cores busy" in line]
    assert len(rows) == 2
    assert "gateway cores busy" in rows[0] and "of 3" in rows[0]
    assert "front cores busy" in rows[1] and "of 1" in rows[1]


def test_json_and_a_drawing_tell_the_same_plan(
    costs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = tmp_path / "load.toml"
    load.write_text('images = 0.5\nsizes = ["448x448"]\nseconds = 30\nwarm_up_s = 5\n')
    plot = tmp_path / "curve.svg"
    arguments = (costs, "--load", load, "--json", "--plot", plot, "--tokens-out", "32")
    assert run(*arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["meets"] is True
    assert told["load"]["tokens_out"] == 32  # an option comes before the file
    drawn = [node.text for node in ElementTree.parse(plot).iter() if node.text]
    ratios = [f"{one['replicas']}:{one['decoders']}" for one in told["curve"]]
    assert [ratio for ratio in ratios if ratio not in drawn] == []


def test_an_autoscaled_plan_has_a_mean_number_of_replicas(
    costs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ("--replicas", "1", "--decoders", "3", "--most-replicas", "6", "--no-curve")
    assert run(costs, *SHORT, "--images", "2", *fixed, "--json") == 0
    assert 1 < json.loads(capsys.readouterr().out)["plan"]["mean_replicas"] <= 6


def test_help_shows_an_example_and_every_field_of_a_load(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "tandem plan costs.json --images 2" in " ".join(text.split())
    fields = {field.name for field in dataclasses.fields(Load)}
    assert fields == set(command.FIELDS)
    assert [name for name in fields if f"--{name.replace('_', '-')}" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images=-1"], "error: images is -1, expected at least 0"),
        (["--images", "many"], 'error: images is "many", expected a number'),
        (["--seed", "1.5"], "error: seed is 1.5, expected a whole number"),
        (["--pictures", "1"], "error: unrecognized arguments: --pictures 1"),
        (["--load", "none.toml"], "error: none.toml: No such file or directory"),
        (["--replicas", "2"], "error: decoders is not given, expected both"),
        (["--replicas", "0", "--decoders", "1"], "error: replicas is 0, expected at least 1"),
        (["--most-nodes", "1"], "error: most_nodes is 1, expected at least 2"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    said: str,
    costs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(costs.parent)
    assert run(costs, *arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_no_model_is_in_its_process() -> None:
    heavy = ("torch", "onnxruntime", "ray", "transformers", "llguidance", "starlette")
    code = f"import sys, planner.__main__; print([n for n in {heavy!r} if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
