"""A file of costs as `tandem bench --costs` writes it, with round figures."""

import json
from pathlib import Path
from typing import Any


def costs_object(**changed: Any) -> dict[str, Any]:
    """Costs of two cores with a 2B model, roughly; `changed` replaces fields."""
    return {
        "preprocess": [{"patches": p, "seconds": 0.01 + p * 1e-5} for p in (256, 1024, 3072)],
        "encode": [{"patches": p, "seconds": p / 500 + p * p * 2e-7} for p in (256, 1024, 3072)],
        "transfer": [{"patches": p, "seconds": 0.002 + p * 2e-6} for p in (256, 1024, 3072)],
        "overhead_s": 0.01,
        "prefill": [{"tokens": t, "seconds": 0.02 + t * 0.0022} for t in (64, 256)],
        "decode": [
            {"sequences": n, "context": 128, "seconds": 0.02 + 0.002 * n} for n in (1, 4, 16)
        ],
        "step_spread": [0.95 + 0.001 * i for i in range(100)] + [1.3],
        "decoder": {
            "slots": 16,
            "waiting": 64,
            "kv_tokens": 32768,
            "max_context": 8192,
            "prefill_chunk": 256,
            "mixed_chunk": 256,
        },
        "max_batch_patches": 4096,
        "max_queued_patches": 65536,
        "startup_s": {"vision": 8.0, "decoder": 3.0},
        **changed,
    }


def write_costs(path: Path, **changed: Any) -> Path:
    """Writes such a file; returns its path."""
    path.write_text(json.dumps(costs_object(**changed)))
    return path
