"""Simon Willison's `llm`, the command: https://github.com/simonw/llm."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.clients import checks
from tests.clients.checks import IMAGE, KEY, MODEL, URL, WORK, same

LLM = str(Path(sys.executable).with_name("llm"))
HOME = WORK / "llm"


def run(*arguments: str, key: str = KEY, standard_input: str | None = None) -> str:
    """Runs the command and returns what it printed.

    Raises:
        AssertionError: it failed; the text is its last words.
    """
    done = subprocess.run(
        [LLM, "-m", "tandem", "-o", "temperature", "0", "--key", key, *arguments],
        input=standard_input or "",
        capture_output=True,
        text=True,
        env={**os.environ, "LLM_USER_PATH": str(HOME)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-300:]
    return done.stdout.strip()


def failure(question: str, key: str = KEY) -> str:
    """What the command says where it fails."""
    try:
        run("--no-stream", key=key, standard_input=question)
    except AssertionError as error:
        return str(error)
    raise AssertionError("it did not fail")


def schema() -> str:
    """llm's own option for a form."""
    form = json.dumps(checks.SCHEMA)
    said = run("--no-stream", "--schema", form, "-a", str(IMAGE), checks.NAMING)
    return same(json.loads(said), {"label": checks.NAME})


def overflow() -> str:
    """The server's sentence is shown."""
    said = failure(checks.LONG)
    assert "maximum context length" in said, said
    return said


def wrong_key() -> str:
    """The server's sentence is shown."""
    said = failure(checks.SUM, key="wrong")
    assert "API key is missing or wrong" in said, said
    return said


HOME.mkdir()
(HOME / "extra-openai-models.yaml").write_text(
    f"- model_id: tandem\n  model_name: {MODEL}\n  api_base: {URL}\n"
    "  api_key_name: tandem\n  vision: true\n  supports_schema: true\n"
)
check = checks.Checks()
check("text", lambda: same(run("--no-stream", checks.SUM), checks.SUM_ANSWER))
check(
    "image", lambda: same(run("--no-stream", "-a", str(IMAGE), checks.COLOR), checks.COLOR_ANSWER)
)
check("stream", lambda: same(run("-a", str(IMAGE), checks.COLOR), checks.COLOR_ANSWER))
check("schema", schema)
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
