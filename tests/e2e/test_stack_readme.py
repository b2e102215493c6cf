"""README's Python blocks, run as they stand against real services."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import bundle
from tests.support.readme import blocks
from tests.support.stack import ServedStack, Stacks
from tests.support.talks import DrawnImage

PYTHON = [block.text for block in blocks() if block.language == "python"]


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


def adapted(program: str, served: ServedStack) -> str:
    """The program with the addresses and the model's name of the stack under test."""
    gateway = served.stack.addresses["gateway"]
    program = re.sub(r"http://(localhost|127\.0\.0\.1):8000/v1", served.stack.http_url, program)
    program = re.sub(r"(localhost|127\.0\.0\.1):50050", gateway, program)
    return re.sub(r'\bmodel="[^"]+"', 'model="tiny-tied"', program)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_python_block_of_the_readme_runs(
    served: ServedStack, number: int, tmp_path: Path
) -> None:
    for name in re.findall(r"[\w-]+\.(?:png|jpe?g|webp)", PYTHON[number]):
        (tmp_path / name).write_bytes(DrawnImage(width=96, height=64).encoded())
    run = subprocess.run(
        [sys.executable, "-c", adapted(PYTHON[number], served)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
