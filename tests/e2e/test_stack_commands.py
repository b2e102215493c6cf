"""The commands as a user types them, against real services."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deploy.commands import demo
from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle, checkpoint, demo_bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import DrawnImage

ROOT = Path(__file__).parents[2]
PATIENCE_S = 280  # of a command, which may start two stacks


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


def ran(
    *arguments: str, stdin: str = "", module: str = "deploy.cli", **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **environment},
    )


def tandem(*arguments: str, stdin: str = "", **environment: str) -> list[str]:
    """The lines a command prints; it must succeed, and have nothing to note."""
    run = ran(*arguments, stdin=stdin, **environment)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.splitlines()


def tandem_without_ray(*arguments: str, **environment: str) -> list[str]:
    """As `tandem`, for what starts stacks and is the same with a lighter vision tier."""
    module, path = "tests.support.tandem_without_ray", str(ROOT)
    return tandem(*arguments, module=module, PYTHONPATH=path, **environment)


def noted(*arguments: str, stdin: str = "") -> list[str]:
    """The lines a command notes beside what it prints; it must succeed."""
    run = ran(*arguments, stdin=stdin)
    assert run.returncode == 0
    return run.stderr.splitlines()


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "noise.png"
    path.write_bytes(DrawnImage(width=90, height=70).encoded())
    return str(path)


def test_chat_answers_a_image_question_with_its_cost(served: ServedStack, image: str) -> None:
    server = f"--server={served.stack.addresses['gateway']}"
    lines = noted(
        "chat", server, "--image", image, "--temperature=0", "--max-tokens=8", "What is it?"
    )
    assert " + 8 tokens · first after " in lines[-1]
    assert lines[-1].endswith("tok/s · cut off at the token limit")


def test_chat_goes_on_about_the_same_image(served: ServedStack, image: str) -> None:
    server = f"--server={served.stack.addresses['gateway']}"
    lines = noted(
        "chat", server, "-i", image, "--temperature=0", "--max-tokens=4", stdin="What?\nSure?\n"
    )
    prompts = [int(line.split(" + ")[0]) for line in lines if " + 4 tokens" in line]
    assert len(prompts) == 2
    assert prompts[1] > prompts[0] > 60  # the image alone is 64 tokens or more


def test_verify_agrees_with_transformers_number_by_number() -> None:
    lines = tandem_without_ray(
        "verify", str(bundle("tied")), "--checkpoint", str(checkpoint("tied"))
    )
    judged = [line for line in lines if "are transformers'" in line]
    assert len(judged) == 4
    assert all(line.startswith("ok ") for line in judged)


def test_verify_tells_rounding_from_faults_in_a_quantized_bundle() -> None:
    arguments = ("verify", str(bundle("odd", "int4")), "--checkpoint", str(checkpoint("odd")))
    lines = tandem_without_ray(*arguments)
    exact = [line for line in lines if " at level 0: 32 of 32 tokens are transformers'" in line]
    assert len(exact) == 4
    assert all(line.startswith("ok ") for line in exact)
    served = [line for line in lines if ", as served: " in line]
    assert len(served) == 4
    whole = r"-- int4 at level 4 beside the float32 checkpoint: top-1 [01]\.\d{3}, KL [\d.e-]+ nats"
    assert re.match(whole, lines[-1])


def test_bench_ends_with_one_line_of_json() -> None:
    lines = tandem(
        "bench", str(bundle("tied", "int4")), "--width=96", "--height=64", "--tokens=4", "--runs=1"
    )
    report = json.loads(lines[-1])
    assert report["completion_tokens"] == 4
    assert report["stages_ms"]["encode"] > 0
    assert report["stages_ms"]["first_token"] >= report["stages_ms"]["prefill"] > 0
    assert (
        set(report["memory_after"]) == set(report["startup_s"]) == {"vision", "decoder", "gateway"}
    )
    assert report["memory_after"]["vision"]["processes"] > 3
    assert all(tier["pss_mib"] > 10 for tier in report["memory_after"].values())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two tests keep one exported bundle."""
    return tmp_path_factory.mktemp("cache")


def test_bench_measures_a_server_that_runs(served: ServedStack) -> None:
    server = f"--server={served.stack.addresses['gateway']}"
    lines = tandem("bench", server, "--width=96", "--height=64", "--tokens=4", "--runs=1")
    report = json.loads(lines[-1])
    assert report["completion_tokens"] == 4
    assert report["stages_ms"]["encode"] > 0
    assert report["startup_s"] == report["memory_ready"] == {}


def test_chat_says_what_a_tier_is(served: ServedStack) -> None:
    for tier in ("vision", "decoder"):
        run = ran("chat", f"--server={served.stack.addresses[tier]}", "Well?")
        assert run.returncode == 2
        assert f"is the {tier} tier" in run.stderr


def test_demo_exports_once_and_answers_every_question(cache: Path) -> None:
    tiny = ("--checkpoint", str(checkpoint("deep")), "--precision", "fp32")
    lines = tandem_without_ray("demo", *tiny, XDG_CACHE_HOME=str(cache))
    costs = [line for line in lines if " tokens · first after " in line]
    asked = json.loads(demo.QUESTIONS.read_text())
    assert len(costs) == len(asked) == 3
    assert all(entry["question"] in lines for entry in asked)
    assert any(
        re.match(r"3 answers in [\d.]+ s, [\d.]+ m?s of it the model's\.", line) for line in lines
    )
    (exported,) = (cache / "tandem").glob("demo-*")
    assert Bundle.open(exported).manifest.graph.precision == "fp32"


def test_a_damaged_bundle_in_the_cache_is_made_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    first = demo.demo_bundle(Console(), checkpoint("deep"), "fp32")
    (first / "tandem.json").write_text("{}")
    again = demo.demo_bundle(Console(), checkpoint("deep"), "fp32")
    assert Bundle.open(again).manifest.graph.precision == "fp32"


def test_demo_answers_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(checkpoint: Path, target: Path, precision: str) -> None:
        assert (checkpoint, precision) == (demo.CHECKPOINT, "int4")
        shutil.copytree(demo_bundle(precision), target)

    # Puts the bundle that other tests use too where the command looks for it.
    monkeypatch.setattr(demo, "_export", export)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exported = demo.demo_bundle(Console(), demo.CHECKPOINT, "int4")
    lines = tandem("demo")
    assert [*(tmp_path / "tandem").glob("demo-*")] == [exported]
    for entry in json.loads(demo.QUESTIONS.read_text()):
        said = lines[lines.index(entry["question"]) + 1]
        assert entry["answer"].lower() in said.lower()
