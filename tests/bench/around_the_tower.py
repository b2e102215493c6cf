"""Everything an image costs but the tower's pass, step by step, from data URL to decoder.

    python -m tests.bench.around_the_tower [--side N] [--rounds N] [--form NAME] [--tower FOLDER]
        [--without-ray]

One PNG of N x N pixels (1024) takes its way, each step by the product's own code:

    plan      gateway: base64, header, digest and grid
    decode    replica: decoding, resizing and cutting into patches, in this process
    box       replica: the same in a boxed worker, the file's way there and the patches' way back
    grids     replica: what the tower needs to know of the grid, and stacking its levels
    ray       front: the file to an actor of a local Ray and the features back
    wire      features as chunks over gRPC to a client in this process: vision tier to gateway
    intake    decoder: chunks checked and put together

The hop from gateway to decoder is counted as much as `wire`. With --tower, a folder of
`tests.support.full_size_tower`, the fast and the exact form's passes are timed for the shares
(goals: at most 10 % of the fast form's, at most 5 % of the exact one's). Figures are processor
time, of this process and all below it, the mean of the rounds: other work on the machine changes it
little. A step runs on one core, the pass on all; its time is divided by them. Not measured: HTTP,
the decoder's own work. The last line of standard output is one JSON object.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from decoder_service.rpc.features import FeatureIntake, feature_rows_from_proto
from decoder_service.sequence.request import Span
from gateway.media.images import ImageSource, MediaLimits, image_bytes, plan_images
from protos.media.grid_inputs import GridSettings, grid_inputs
from protos.media.images import Grid, ImageSettings
from protos.tandem.v1 import decoder_pb2, vision_pb2
from protos.wire import features
from tests.bench.machine import warn_unless_quiet
from tests.unit.vision_service.fakes import FakeEncoders
from tests.unit.vision_service.test_servicer import served
from vision_service.box.memory import SharedFile
from vision_service.jobs import Patches
from vision_service.media import boxed
from vision_service.media.images import ImageLimits, checked_header, decode_rgb
from vision_service.media.preprocess import to_patches
from vision_service.towers.onnx_tower import OnnxTower

IMAGES = ImageSettings(
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=65_536,
    max_pixels=16_777_216,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)
LEVELS, HIDDEN = 4, 2048  # of the 2B model
RAY_S = 300.0  # to start
GOALS = {"fast": 0.10, "exact": 0.05}


def picture(side: int) -> bytes:
    """A PNG with the detail of a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def processor_s() -> float:
    """Processor seconds of this process and all that live below it, so far."""
    own = psutil.Process()
    spent = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


async def mean_ms(step: Callable[[], Awaitable[Any]], rounds: int) -> float:
    """Processor milliseconds of a call, the first apart."""
    await step()
    began_s = processor_s()
    for _ in range(rounds):
        await step()
    return (processor_s() - began_s) / rounds * 1e3


class Way:
    """One image's steps."""

    def __init__(self, side: int, form: str) -> None:
        self.data = picture(side)
        self.url = "data:image/png;base64," + base64.b64encode(self.data).decode()
        self.form = form
        self.plan_of_images = boxed.ImagePlan(
            settings=IMAGES, limits=ImageLimits(), max_patches=65_536
        )
        self.box = boxed.new_box(self.plan_of_images)
        self.grid = Grid(1, side // 16, side // 16)
        self.tokens = self.grid.tokens(2)
        shape = (LEVELS, self.tokens, HIDDEN)
        self.features = np.random.default_rng(0).standard_normal(shape, np.float32)
        self.chunks = [
            features.to_proto(level, level=index, row_offset=0, form=form)
            for index, level in enumerate(self.features)
        ]

    async def plan(self) -> None:
        """See the module's docstring, as for all steps."""
        data = image_bytes(self.url, field="messages[0]")
        plan_images(
            [ImageSource("messages[0]", data)], IMAGES, limits=MediaLimits(), digest_key=bytes(32)
        )

    async def decode(self) -> None:
        header = checked_header(self.data, ImageLimits())
        to_patches(decode_rgb(self.data, header), self.grid, IMAGES)

    async def boxed(self) -> None:
        job = boxed.job(boxed.PATCHES_TASK, SharedFile(self.data), self.plan_of_images)
        with job.file:
            result = await self.box.run(job)
        np.add.reduce(result.arrays[0][::64])  # a value of every page of it, as the tower reads

    async def grids(self) -> None:
        settings = GridSettings(table_side=48, merge_size=2, head_dim=64, rope_theta=10_000.0)
        grid_inputs([self.grid], settings)
        assert all(np.isfinite(level).all() for level in self.features)
        np.stack(list(self.features))

    async def intake(self) -> None:
        spans = (Span(offset=0, length=self.tokens, digest=b""),)
        intake = FeatureIntake(spans, (0,), level_count=LEVELS, hidden_size=HIDDEN)
        for chunk in self.chunks:
            message = decoder_pb2.SpanFeatures(span_index=0, chunk=chunk)
            intake.add(feature_rows_from_proto(message, HIDDEN))
        assert intake.is_complete


async def wire_ms(way: Way, rounds: int) -> float:
    """The stream of one Encode call, its features being there."""
    encoders = FakeEncoders(LEVELS, HIDDEN)
    encoders.grid, encoders.features = way.grid, way.features
    async with served(encoders, form=way.form) as it:
        request = vision_pb2.EncodeRequest(image=b"there already")
        return await mean_ms(lambda: it.encode(request), rounds)


def ray_ms(way: Way, rounds: int) -> float:
    """A call of an actor that has the features already."""
    import ray

    from vision_service.replicas.ray_runtime import patient

    with patient(RAY_S):
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    class Echo:
        def __init__(self, made: np.ndarray) -> None:
            self._made = made.copy()

        def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
            return {"features": self._made}

    actor = ray.remote(Echo).remote(way.features)
    plain = {"image": way.data}
    ray.get(actor.encode.remote(plain))
    began_s = processor_s()
    for _ in range(rounds):
        ray.get(actor.encode.remote(plain))
    spent_s = processor_s() - began_s
    ray.shutdown()
    return spent_s / rounds * 1e3


def tower_ms(folder: Path, form: str, grid: Grid) -> float:
    """One pass on all cores."""
    cores = len(os.sched_getaffinity(0))
    # One thread: more of them wait for each other by spinning, on a busy machine for long.
    tower = OnnxTower.load(folder, form=form, threads=1)
    pixels = np.random.default_rng(0).uniform(-1, 1, (grid.patches, 1536)).astype(np.float32)
    began_s = time.process_time()
    tower.encode([Patches(pixels, grid)])
    return (time.process_time() - began_s) / cores * 1e3


async def steps(way: Way, rounds: int) -> dict[str, float]:
    """Milliseconds of every step."""
    found = {
        "plan": await mean_ms(way.plan, rounds),
        "decode": await mean_ms(way.decode, rounds),
        "box": await mean_ms(way.boxed, rounds),
        "grids": await mean_ms(way.grids, rounds),
        "wire": await wire_ms(way, rounds),
        "intake": await mean_ms(way.intake, rounds),
    }
    way.box.close()
    return found


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Everything but the tower's pass.")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--form", choices=features.FORMS, default="float32")
    parser.add_argument("--tower", type=Path)
    parser.add_argument("--without-ray", action="store_true", help="leave its step out")
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    way = Way(arguments.side, arguments.form)
    found = asyncio.run(steps(way, arguments.rounds))
    if not arguments.without_ray:
        found["ray"] = ray_ms(way, arguments.rounds)
    total = sum(found.values()) + found["wire"] - found["decode"]
    for name, spent in found.items():
        print(f"{name:8}{spent:9.1f} ms")
    print(f"{'all':8}{total:9.1f} ms")
    passes = {}
    for form, goal in GOALS.items() if arguments.tower else ():
        passes[form] = tower_ms(arguments.tower, form, way.grid)
        share = total / passes[form]
        print(f"{form}: a pass of {passes[form]:.0f} ms, {share:.1%} around it (goal {goal:.0%})")
    figures = {**found, "all": total, "passes": passes}
    figures |= {"form": arguments.form, "most_other_cores_in_use": others}
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
