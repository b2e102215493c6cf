"""What a video costs the tower by its frames, beside one image of as many tokens, in one run.

    python -m tests.bench.video_frames [--folder FOLDER] [--rounds N] [--threads N]
        [--frames N ...] [--side N] [--form NAME]

The tower of the 2B and 4B models (24 blocks, width 1024) with random weights, in this process. A
video is encoded as a gateway has it encoded: in pieces of whole temporal patches (two frames each),
one pass after the other. Each temporal patch attends to itself alone, so a video should cost the
same for each frame however many there are; an image of as many patches attends to all of them. All
lengths and the image are taken in turn within a round, every other round the other way round;
patches per second are of the median. Goals: every length within 10 % of 64 frames' patches per
second, and 64 frames at 1.5 times the image's.

Ceiling: the image's speed without attention, which is a video's of frames without patches. Not
measured: reading the file and choosing frames, Ray, the wire. The last line of standard output is
one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from math import isqrt
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gateway.media.videos import MAX_PIECE_PATCHES
from protos.media.images import Grid
from tests.bench.compare_towers import FOLDER
from tests.bench.drivers.tower import PATCH_DIM
from tests.bench.machine import warn_unless_quiet
from tests.support import full_size_tower
from vision_service.jobs import Patches
from vision_service.towers.onnx_tower import OnnxTower

FRAMES_OF_PATCH = 2
SHOWN = 64  # frames that the others are compared with
LINEAR_GOAL, RATIO_GOAL = 0.1, 1.5


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    if not (arguments.folder / "vision" / "config.json").is_file():
        sys.stderr.write(f"writing random weights to {arguments.folder}\n")
        full_size_tower.build(arguments.folder)
    tower = OnnxTower.load(arguments.folder, form=arguments.form, threads=arguments.threads)
    cases = {f"{frames} frames": video(frames, arguments.side) for frames in arguments.frames}
    cases["image"] = [image(SHOWN // FRAMES_OF_PATCH * (arguments.side // 16) ** 2)]
    others = warn_unless_quiet()
    speeds = measured(cases, lambda piece: tower.encode([piece]), arguments.rounds)
    shown = speeds[f"{SHOWN} frames"]
    found = {
        "form": arguments.form,
        "side": arguments.side,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "patches_per_s": speeds,
        "off_linear": {name: speed / shown - 1 for name, speed in speeds.items()},
        "video_over_image": shown / speeds["image"],
        "other_cores": others,
    }
    _show(speeds, shown)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def video(frames: int, side: int) -> list[Patches]:
    """The pieces of a video of square frames, noise, as `gateway/media/video_plans.py` cuts it."""
    patches = (side // 16) ** 2
    step = max(1, MAX_PIECE_PATCHES // patches)
    times = frames // FRAMES_OF_PATCH
    return [
        noise(Grid(min(step, times - first), side // 16, side // 16))
        for first in range(0, times, step)
    ]


def image(patches: int) -> Patches:
    """A square image of about so many patches, noise."""
    side = isqrt(patches) // 2 * 2
    return noise(Grid(1, side, side))


@cache
def noise(grid: Grid) -> Patches:
    """Pixels of a grid; pieces share them, for their values do not matter."""
    random = np.random.default_rng(0)
    return Patches(random.uniform(-1, 1, (grid.patches, PATCH_DIM)).astype(np.float32), grid)


def measured(
    cases: dict[str, list[Patches]], encode: Callable[[Patches], object], rounds: int
) -> dict[str, float]:
    """Patches per second of each case, of the median of its rounds."""
    for pieces in cases.values():
        encode(pieces[0])  # whatever is done once
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = [
        name for number in range(rounds) for name in (cases if number % 2 == 0 else [*cases][::-1])
    ]
    for name in track(order, "passes", console=Console(stderr=True)):
        began_s = time.perf_counter()
        for piece in cases[name]:
            encode(piece)
        seconds[name].append(time.perf_counter() - began_s)
    return {
        name: sum(piece.grid.patches for piece in pieces) / statistics.median(seconds[name])
        for name, pieces in cases.items()
    }


def _show(speeds: dict[str, float], shown: float) -> None:
    table = Table("", "patches/s", "tokens/s", f"beside {SHOWN} frames")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.0f}", f"{speed / 4:.0f}", f"{speed / shown:.2f}x")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"goals: every length within {LINEAR_GOAL:.0%} of {SHOWN} frames, and those"
        f" {RATIO_GOAL}x the image (here {shown / speeds['image']:.2f}x)"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A video's cost by its frames.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=256, help="of a frame, pixels")
    parser.add_argument("--form", choices=("fast", "exact", "portable"), default="fast")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, SHOWN, 128, 256, 512])
    arguments = parser.parse_args()
    if SHOWN not in arguments.frames:
        parser.error(f"--frames needs {SHOWN}, with which the others are compared")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
