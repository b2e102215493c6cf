"""inference-perf, the command: https://github.com/kubernetes-sigs/inference-perf."""

import json
from typing import Any

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, ORIGIN, TOKENIZER, WORK, run

CONFIG = {
    "api": {"type": "chat", "streaming": True},
    "data": {
        "type": "synthetic",
        "input_distribution": {"min": 10, "max": 20, "mean": 15, "std_dev": 2, "total_count": 3},
        "output_distribution": {"min": 4, "max": 8, "mean": 6, "std_dev": 1, "total_count": 3},
        "multimodal": {
            "image": {
                "count": {"min": 1, "max": 1, "mean": 1, "std_dev": 0, "total_count": 3},
                "resolutions": [{"resolution": {"width": 128, "height": 128}, "weight": 1}],
            }
        },
    },
    "load": {"type": "constant", "stages": [{"rate": 1, "duration": 3}], "num_workers": 1},
    "server": {
        "type": "vllm",
        "model_name": MODEL,
        "base_url": ORIGIN,
        "api_key": KEY,
        "ignore_eos": False,
    },
    "tokenizer": {"pretrained_model_name_or_path": TOKENIZER},
    "storage": {"local_storage": {"path": str(WORK / "reports")}},
}


def benchmark() -> str:
    """Streams answers about images of its own; none fails."""
    path = WORK / "config.yml"
    path.write_text(json.dumps(CONFIG))  # JSON is YAML too
    run("inference-perf", "--config_file", str(path))
    found = report()
    assert found["successes"]["count"] > 0, found
    assert found["failures"]["count"] == 0, found["failures"]
    return f"{found['successes']['count']} succeeded, none failed"


def report() -> Any:
    """The summary of all requests."""
    (found,) = (WORK / "reports").rglob("summary_lifecycle_metrics.json")
    return json.loads(found.read_text())


check = checks.Checks()
check("report with images, streamed", benchmark)
check.end()
