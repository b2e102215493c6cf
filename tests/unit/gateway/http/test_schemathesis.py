"""A few requests drawn from the document for every route: no 5xx, and every answer as it says.

`make schema` draws many more, and looks at every boundary of every field.
"""

import asyncio
import re
from pathlib import Path

import pytest

from tests.schema.command import command, environment
from tests.unit.gateway.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATIONS = 22


@pytest.mark.timeout(300)  # some seconds, but on cores that others keep busy
async def test_answers_to_what_the_document_allows_and_forbids_are_as_it_says(
    stage: Stage, tmp_path: Path
) -> None:
    url = str(stage.http.base_url).rstrip("/")
    run = await asyncio.create_subprocess_exec(
        *command(url, phases=("fuzzing",), examples=3),
        env=environment(),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await run.communicate()
    report = told.decode()
    assert run.returncode == 0, report
    assert f"Tested: {OPERATIONS}" in report
    found = re.search(r"(\d+) generated", report)
    assert found is not None and int(found[1]) >= 2 * OPERATIONS, report
