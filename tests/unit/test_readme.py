"""README and CONTRIBUTING promise nothing that is not there: commands, options, targets, files.

README's Python blocks run against real services in tests/e2e/test_stack_readme.py.
"""

import functools
import re
import subprocess
import sys
import tomllib

from tests.support.readme import CONTRIBUTING, README, ROOT, blocks, commands, links

TIERS = ("vision", "decoder", "gateway")


@functools.cache
def help_of(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"COLUMNS": "200", "PATH": "", "HOME": "/nonexistent"},
    )
    assert run.returncode == 0, f"tandem {' '.join(command)} --help failed: {run.stderr}"
    return run.stdout


def named(program: str) -> list[list[str]]:
    found = (command for document in (README, CONTRIBUTING) for command in commands(document))
    return [words[1:] for words in found if words[0].rpartition("/")[2] == program]


def test_every_tandem_command_and_option_exists() -> None:
    for words in named("tandem"):
        command = words[:2] if words[:1] == ["serve"] and words[1] in TIERS else words[:1]
        text = help_of(*command)
        for word in words:
            if word.startswith("-"):
                option = re.escape(word.partition("=")[0])
                assert re.search(rf"{option}(?![\w-])", text), f"tandem {' '.join(words)}"


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in named("make"):
        for target in words:
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_every_script_that_is_run_exists() -> None:
    for program in ("python", "python3"):
        for words in named(program):
            if words[0].endswith(".py"):
                assert (ROOT / words[0]).is_file(), words[0]


def test_every_extra_that_is_installed_exists() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    asked = re.findall(r"(?:tandem-vlm|\.)\[([\w,]+)\]", README.read_text())
    assert {extra for group in asked for extra in group.split(",")} <= extras


def test_every_linked_file_exists() -> None:
    assert [link for link in links() if not (ROOT / link).exists()] == []


def test_python_blocks_compile() -> None:
    for number, block in enumerate(blocks()):
        if block.language == "python":
            compile(block.text, f"README.md block {number}", "exec")
