"""aiperf, the command: https://github.com/ai-dynamo/aiperf."""

import json
from typing import Any

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, ORIGIN, TOKENIZER, WORK, run, same

REQUESTS = 3


def benchmark() -> str:
    """Streams answers about images of its own; every one succeeds."""
    run(
        "aiperf",
        "profile",
        f"--model={MODEL}",
        f"--url={ORIGIN}",
        "--endpoint-type=chat",
        "--streaming",
        f"--api-key={KEY}",
        f"--request-count={REQUESTS}",
        "--concurrency=1",
        f"--tokenizer={TOKENIZER}",
        "--synthetic-input-tokens-mean=20",
        "--output-tokens-mean=8",
        "--image-width-mean=128",
        "--image-height-mean=128",
        "--ui=simple",
    )
    return same(report()["request_count"]["avg"], float(REQUESTS))


def report() -> Any:
    """The report."""
    (found,) = WORK.glob("artifacts/*/profile_export_aiperf.json")
    return json.loads(found.read_text())


def figures() -> str:
    """Times to first token, images counted, and tokens as the server counts them."""
    first, prompt = report()["time_to_first_token"]["avg"], report()["usage_prompt_tokens"]["avg"]
    assert first > 0, first
    assert prompt > 0, prompt
    same(report()["num_images"]["avg"], 1.0)
    return f"time to first token {first:.0f} ms, {prompt:.0f} prompt tokens"


check = checks.Checks()
check("report with images, streamed", benchmark)
check("figures", figures)
check.end()
