"""Which tower a replica gets, and what it loads for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernels import library
from tests.support.bundles import bundle
from vision_service.towers.tower import chosen

ROOT = Path(__file__).parents[4]

# A replica from its settings to the features of an image, as Ray runs it.
REPLICA = """
import asyncio, io, sys
from PIL import Image
from vision_service.jobs import Encoded, EncodedImage, EncodeJob
from vision_service.replicas.replica import Replica, ReplicaSettings
settings = ReplicaSettings(
    bundle={bundle!r}, device="cpu", tower={tower!r}, dtype="float32", threads=1,
    max_batch_patches=1024, max_queued_patches=4096, max_image_bytes=1 << 20,
    max_image_pixels=1 << 20, max_image_patches=4096,
)
file = io.BytesIO()
Image.new("RGB", (90, 70), "teal").save(file, "PNG")
job = EncodeJob(source=EncodedImage(data=file.getvalue(), expected_grid=None))
made = Encoded.from_plain(asyncio.run(Replica.load(settings).encode(job.to_plain())))
assert made.features.ndim == 3
print(*sorted({{"torch", "transformers"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("tower", "device", "dtype", "expected"),
    [
        ("auto", "cpu", "float32", "fast" if library.path() else "torch"),
        ("auto", "cpu", "bfloat16", "torch"),
        ("auto", "cuda", "float32", "torch"),
        ("fast", "cpu", "float32", "fast"),
        ("torch", "cpu", "float32", "torch"),
    ],
)
def test_auto_is_the_fast_form_where_it_runs(
    tower: str, device: str, dtype: str, expected: str
) -> None:
    assert chosen(tower, device=device, dtype=dtype) == expected


@pytest.mark.skipif(library.path() is None, reason="Tandem's operators do not run here")
@pytest.mark.parametrize(
    ("tower", "loaded"), [("auto", ""), ("exact", ""), ("torch", "torch transformers")]
)
def test_a_replica_loads_torch_for_the_torch_tower_only(tower: str, loaded: str) -> None:
    code = REPLICA.format(bundle=str(bundle("tied")), tower=tower)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (run.stdout.strip(), run.returncode) == (loaded, 0), run.stderr
