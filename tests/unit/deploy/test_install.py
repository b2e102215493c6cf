"""How a clone's environment is made: the steps' lines, their failures, and the lock files."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.install import InstallError, Step, pinned, subject

ROOT = Path(__file__).parents[3]
LOCK, TEST_LOCK = ROOT / "requirements.lock", ROOT / "requirements-test.lock"

with (ROOT / "pyproject.toml").open("rb") as file:
    PROJECT = tomllib.load(file)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_step_is_one_line_with_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Step("3 packages", python("print('quiet')"), tmp_path / "log").finish()
    assert re.fullmatch(r"  3 packages +\d+\.\d s\n", capsys.readouterr().out)
    assert (tmp_path / "log").read_text() == "quiet\n"


def test_a_failed_step_shows_the_end_of_its_log_and_names_it(tmp_path: Path) -> None:
    program = "print(*range(100), sep='\\n'); raise SystemExit('no such package')"
    with pytest.raises(InstallError) as caught:
        Step("packages", python(program), tmp_path / "log").finish()
    text = str(caught.value)
    assert "packages failed" in text and "no such package" in text
    assert str(tmp_path / "log") in text
    assert " 99\n" in text and " 20\n" not in text


def test_a_step_beside_another_tells_its_own_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Step("short", python(""), tmp_path / "short")
    Step("long", python("import time; time.sleep(1.5)"), tmp_path / "long").finish()
    short.finish()
    long_s, short_s = re.findall(r"([\d.]+) s\n", capsys.readouterr().out)
    assert float(short_s) < float(long_s)


def test_a_step_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    step = Step("endless", python("import time; time.sleep(60)"), tmp_path / "log")
    step.stop()
    with pytest.raises(InstallError):
        step.finish()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Collecting torch==2.13.0 (from -r requirements.lock (line 95))", "torch"),
        ("Processing /some/folder/anyio-4.16.0-py3-none-any.whl (from x)", "anyio"),
        ("Collecting ray[serve]==2.60.0", "ray"),
        ("Collecting grpcio-tools==1.85.1 (from -r some/requirements.lock)", "grpcio-tools"),
        ("Installing collected packages: torch, ray", "unpacking"),
        ("Looking in indexes: somewhere", ""),
    ],
)
def test_what_pip_is_at_is_read_from_its_log(tmp_path: Path, line: str, said: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"{line}\n  Downloading something\n")
    assert subject(log) == said


def named(lock: Path) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in pinned(lock)]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_locked_package_has_one_version_in_one_lock() -> None:
    product, tests = named(LOCK), named(TEST_LOCK)
    assert len(product) == len(pinned(LOCK)) and len(tests) == len(pinned(TEST_LOCK))
    assert product.keys().isdisjoint(tests)
    for requirement in (*product.values(), *tests.values()):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement


def test_the_locks_hold_what_is_declared_and_what_builds_it() -> None:
    product, tests = named(LOCK), named(TEST_LOCK)
    project, extras = PROJECT["project"], dict(PROJECT["project"]["optional-dependencies"])
    wanted = [(line, tests) for line in extras.pop("dev")]
    lines = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    wanted += [(line, product) for line in (*lines, *(line for e in extras.values() for line in e))]
    for line, lock in wanted:
        requirement = Requirement(line)
        (pin,) = lock[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), line


def test_the_locks_are_complete() -> None:
    locked = named(LOCK) | named(TEST_LOCK)
    for name in named(LOCK):
        # Of the two builds of torch, the CUDA one brings libraries of its own; ziglang brings
        # nothing, and is not there on every machine.
        if name in ("torch", "ziglang"):
            continue
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{name} needs {line}"
