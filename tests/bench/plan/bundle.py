"""A bundle with random weights whose steps take milliseconds, for timings of whole stacks.

    python -m tests.bench.plan.bundle

The tiny bundles of the tests spend more on a token's way than on its step, and the real shapes
take more disk and minutes than such a timing is worth. It is made once and kept in .cache/.
"""

import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".cache" / "tandem-bench" / "plan"
NAME = "plan"


def plan_bundle() -> Path:
    """The bundle's folder; makes it if it is not there, in about a minute.

    Raises:
        subprocess.CalledProcessError: it could not be exported.
    """
    bundle = FOLDER / "plan.tandem"
    if not bundle.is_dir():
        checkpoint = _checkpoint()
        command = [sys.executable, "-m", "deploy.export", str(checkpoint), str(bundle)]
        subprocess.run([*command, "--block-size=32"], cwd=ROOT, check=True)
    return bundle


def _checkpoint() -> Path:
    # Imported here, for torch takes seconds and the bundle is usually there.
    from tests.support import checkpoints

    spec = checkpoints.CheckpointSpec(
        name=NAME,
        seed=5,
        dtype="bfloat16",
        tied=True,
        merges=400,
        text={
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 128,
        },
        vision={
            "depth": 8,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_heads": 12,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        mrope_section=(24, 20, 20),
    )
    with mock.patch.dict(checkpoints.SPECS, {NAME: spec}):
        return checkpoints.build(NAME, FOLDER / "checkpoint")


if __name__ == "__main__":
    print(plan_bundle())
