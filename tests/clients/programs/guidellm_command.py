"""guidellm, the command: https://github.com/vllm-project/guidellm."""

import json
from typing import Any

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, ORIGIN, WORK, run, same

REPORT = WORK / "report.json"
REQUESTS = 3


def benchmark() -> str:
    """Streams answers about images of its own, one after the other; every one succeeds."""
    run(
        "guidellm",
        "run",
        f"--backend=kind=openai_http,target={ORIGIN},model={MODEL},api_key={KEY}",
        "--profile=kind=synchronous",
        f"--constraint=kind=max_requests,count={REQUESTS}",
        "--data=kind=synthetic_image,width=128,height=128,output_tokens=8",
        f"--output=kind=json,path={REPORT}",
        "--disable-console",
    )
    return same(metrics()["request_totals"]["successful"], REQUESTS)


def metrics() -> Any:
    """The figures of the report."""
    return json.loads(REPORT.read_text())["benchmarks"][0]["metrics"]


def figures() -> str:
    """Times to first token, and tokens as the server counts them."""
    first = metrics()["time_to_first_token_ms"]["successful"]["mean"]
    prompt = metrics()["prompt_token_count"]["successful"]["mean"]
    assert first > 0, first
    assert prompt > 0, prompt
    return f"time to first token {first:.0f} ms, {prompt:.0f} prompt tokens"


check = checks.Checks()
check("report with images, streamed", benchmark)
check("figures", figures)
check.end()
