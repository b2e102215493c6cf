"""Small images at once beside the same ones one after another, in one run.

    python -m tests.bench.small_images [--folder FOLDER] [--rounds N] [--threads N] [--count N]
        [--patches N ...] [--forms NAME ...] [--sets NAME ...] [--ways NAME ...] [--processor]

The tower of the 2B and 4B models (24 blocks, width 1024) with random weights, in this process.
Ways: `tower` is the graph alone, a pass of all images or a pass each; `replica` is what a replica
does with PNG files, from the call to the features, all calls at once or each after the last one's
answer. Every form and size is measured in rounds, both orders within a round, every other round
the other way round. A ratio is seconds one after another over seconds at once: the median of the
ratios within each round, and that of the least seconds.

Instruction sets are those of `kernels`: `avx512` is AVX-512 VNNI without matrix tiles, `amx` has
them; what the processor lacks is left out. Goals: at least 1.3x (avx512), 1.2x (avx2).

--processor counts this process's processor seconds instead of the clock's, which other work on the
machine changes little (use one thread: two wait for each other by spinning). Not measured: Ray,
the wire. The last line of standard output is one JSON object.
"""

import argparse
import asyncio
import ctypes
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from kernels import library
from protos.media.images import Grid, ImageSettings
from tests.bench.compare_towers import FOLDER
from tests.bench.drivers.tower import PATCH_DIM
from tests.bench.figures import paired_ratio
from tests.bench.machine import warn_unless_quiet
from tests.support import full_size_tower
from vision_service.jobs import EncodedImage, EncodeJob, Patches
from vision_service.media import boxed
from vision_service.replicas.replica import Replica, ReplicaSettings, image_plan
from vision_service.towers.onnx_tower import OnnxTower

SETS = ("avx2", "avxvnni", "avx512", "amx")  # in the order of `tandem_allow`, from 1 on
GOALS = {"avx512": 1.3, "amx": 1.3, "avxvnni": 1.2, "avx2": 1.2}
AT_ONCE, IN_TURN = "at_once", "in_turn"
IMAGES = ImageSettings(
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=1024,  # small ones stay small
    max_pixels=16_777_216,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFigure:
    """One way of one form at one size, on one instruction set."""

    instruction_set: str
    way: str
    form: str
    patches: int
    ratio: float
    ratio_of_least: float
    at_once_patches_per_s: float
    in_turn_patches_per_s: float
    goal: float


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    console = Console(width=120, stderr=True)
    if not (arguments.folder / "vision" / "config.json").is_file():
        console.print(f"writing random weights to {arguments.folder}")
        full_size_tower.build(arguments.folder)
    towers = {
        form: OnnxTower.load(arguments.folder, form=form, threads=arguments.threads)
        for form in arguments.forms
    }
    found, others = [], []
    for name in arguments.sets:
        with _only(name) as is_there:
            for form, patches in _cases(arguments) if is_there else ():
                others.append(warn_unless_quiet())
                found += measured(name, form, patches, towers[form], arguments)
                console.print(str(found[-1]))
    _show(found)
    figures = {
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "count": arguments.count,
        "clock": "processor" if arguments.processor else "wall",
        "other_cores": max(others),
        "figures": [asdict(figure) for figure in found],
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _cases(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    return [(form, patches) for form in arguments.forms for patches in arguments.patches]


def measured(
    name: str, form: str, patches: int, tower: OnnxTower, arguments: argparse.Namespace
) -> list[SmallFigure]:
    """Figures of all ways of one form at one size; `name` is the instruction set in use."""
    side = isqrt(patches)
    grid = Grid(1, side, side)
    clock = time.process_time if arguments.processor else time.perf_counter
    with ExitStack() as stack:
        runs: dict[str, Callable[[str], None]] = {}
        if "tower" in arguments.ways:
            runs["tower"] = _tower_run(tower, grid, arguments.count)
        if "replica" in arguments.ways:
            runs["replica"] = stack.enter_context(_replica_run(tower, grid, arguments))
        found = []
        for way, run in runs.items():
            rounds = _rounds(run, arguments.rounds, clock)
            total = arguments.count * grid.patches
            least = {key: min(one[key] for one in rounds) for key in (AT_ONCE, IN_TURN)}
            ratio = paired_ratio(rounds, slower=IN_TURN, faster=AT_ONCE)
            assert ratio is not None
            found.append(
                SmallFigure(
                    instruction_set=name,
                    way=way,
                    form=form,
                    patches=grid.patches,
                    ratio=ratio,
                    ratio_of_least=least[IN_TURN] / least[AT_ONCE],
                    at_once_patches_per_s=_speed(total, rounds, AT_ONCE),
                    in_turn_patches_per_s=_speed(total, rounds, IN_TURN),
                    goal=GOALS[name],
                )
            )
    return found


def _speed(patches: int, rounds: Sequence[Seconds], key: str) -> float:
    return patches / statistics.median(one[key] for one in rounds)


def _rounds(run: Callable[[str], None], count: int, clock: Callable[[], float]) -> list[Seconds]:
    run(AT_ONCE)  # whatever is done once
    rounds = []
    for number in range(count):
        keys = (AT_ONCE, IN_TURN) if number % 2 == 0 else (IN_TURN, AT_ONCE)
        seconds = {}
        for key in keys:
            began_s = clock()
            run(key)
            seconds[key] = clock() - began_s
        rounds.append(seconds)
    return rounds


def _tower_run(tower: OnnxTower, grid: Grid, count: int) -> Callable[[str], None]:
    random = np.random.default_rng(0)
    shape = (grid.patches, PATCH_DIM)
    batch = [Patches(random.uniform(-1, 1, shape).astype(np.float32), grid) for _ in range(count)]

    def run(key: str) -> None:
        for part in [batch] if key == AT_ONCE else [[one] for one in batch]:
            tower.encode(part)

    return run


@contextmanager
def _replica_run(
    tower: OnnxTower, grid: Grid, arguments: argparse.Namespace
) -> Iterator[Callable[[str], None]]:
    settings = ReplicaSettings(
        bundle="unused",
        device="cpu",
        tower="unused",
        dtype="float32",
        threads=arguments.threads,
        max_batch_patches=4096,
        max_queued_patches=65_536,
        max_image_bytes=1 << 24,
        max_image_pixels=1 << 24,
        max_image_patches=65_536,
    )
    plan = image_plan(settings, IMAGES)
    jobs = [_job(grid, seed) for seed in range(arguments.count)]
    with closing(boxed.new_box(plan)) as box:
        replica = Replica(settings, plan, tower, box)

        async def send(key: str) -> None:
            if key == AT_ONCE:
                answers = await asyncio.gather(*(replica.encode(job) for job in jobs))
            else:
                answers = [await replica.encode(job) for job in jobs]
            assert all("features" in answer for answer in answers)

        with asyncio.Runner() as runner:
            yield lambda key: runner.run(send(key))


def _job(grid: Grid, seed: int) -> dict[str, Any]:
    """A PNG with the detail of a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (grid.h, grid.w, 3), np.uint8)
    size = (grid.w * 16, grid.h * 16)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    source = EncodedImage(data=buffer.getvalue(), expected_grid=grid)
    return EncodeJob(source=source).to_plain()


@contextmanager
def _only(name: str) -> Iterator[bool]:
    """Holds the kernels to an instruction set; gives whether the processor has it."""
    loaded = ctypes.CDLL(str(library.path()))
    loaded.tandem_instruction_set.restype = ctypes.c_char_p
    loaded.tandem_allow(1 + SETS.index(name))
    found = "amx" if loaded.tandem_has_tiles() else loaded.tandem_instruction_set().decode()
    try:
        yield found == name
    finally:
        loaded.tandem_allow(len(SETS))


def _show(found: Sequence[SmallFigure]) -> None:
    table = Table(title="small images, at once beside in turn", title_justify="left")
    for column in (
        "set",
        "way",
        "form",
        "patches",
        "ratio",
        "of least",
        "goal",
        "at once",
        "in turn",
    ):
        table.add_column(column)
    for figure in found:
        table.add_row(
            *(figure.instruction_set, figure.way, figure.form, str(figure.patches)),
            *(f"{figure.ratio:.2f}x", f"{figure.ratio_of_least:.2f}x", f"{figure.goal:.1f}x"),
            *(f"{figure.at_once_patches_per_s:.0f}/s", f"{figure.in_turn_patches_per_s:.0f}/s"),
        )
    Console(width=110).print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Small images at once and in turn.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--patches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--forms", nargs="+", choices=("fast", "exact"), default=["fast", "exact"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["amx", "avx512", "avx2"])
    parser.add_argument(
        "--ways", nargs="+", choices=("tower", "replica"), default=["tower", "replica"]
    )
    parser.add_argument("--processor", action="store_true", help="processor time, not the clock")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
