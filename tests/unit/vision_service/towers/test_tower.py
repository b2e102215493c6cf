"""Which tower a replica gets, and what it loads for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernels import library
from tests.support.bundles import bundle
from vision_service.towers.tower import chosen

LEVEL = {"mean": 0.9995, "first_percentile": 0.999, "least": 0.9}
GOOD = {"tower": {"levels": [LEVEL, LEVEL]}}

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
        ("auto", "cpu", "bfloat16", "torch"),
        ("auto", "cuda", "float32", "torch"),
        ("fast", "cpu", "float32", "fast"),
        ("torch", "cpu", "float32", "torch"),
    ],
)
def test_a_form_is_what_was_asked_for_or_what_the_device_allows(
    tower: str, device: str, dtype: str, expected: str
) -> None:
    assert chosen(tower, GOOD, device=device, dtype=dtype) == expected


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (GOOD, "fast"),
        ({"tower": {"levels": [LEVEL, {**LEVEL, "first_percentile": 0.9989}]}}, "exact"),
        ({"tower": {"levels": [{**LEVEL, "mean": 0.9994}, LEVEL]}}, "exact"),
        ({"logits": {}}, "exact"),  # of a bundle that was not measured
    ],
)
def test_auto_is_the_fast_form_where_the_bundle_says_it_keeps_the_bars(
    quality: dict[str, Any], expected: str
) -> None:
    form = chosen("auto", quality, device="cpu", dtype="float32")
    assert form == (expected if library.path() else "torch")


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
