"""Sends damaged image files to a replica and looks whether anything but an answer comes back.

    python -m tests.bench.fuzz_images [--files N] [--seed N]

The replica is a real one but for its tower. Every file must be encoded or refused with the
client's own error; workers of the box may die, the replica and its other images may not. A sound
image is sent after every hundredth file. The last line of standard output is one JSON object.

Not measured: other parsers than the images', files of megabytes.
"""

import argparse
import asyncio
import collections
import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import track

from protos.media.images import ImageSettings
from protos.wire.errors import Reason, error_for
from tests.support.mutations import mutated, originals
from tests.unit.vision_service.fakes import FakeTower
from vision_service.box.box import ParserBox
from vision_service.jobs import EncodedImage, EncodeJob
from vision_service.media.boxed import new_box
from vision_service.replicas.replica import Replica, ReplicaSettings, image_plan

SETTINGS = ReplicaSettings(
    bundle="unused",
    device="cpu",
    tower="auto",
    dtype="float32",
    threads=1,
    max_batch_patches=4096,
    max_queued_patches=65_536,
    max_image_bytes=1_000_000,
    max_image_pixels=1_000_000,
    max_image_patches=16_384,
)
IMAGES = ImageSettings(
    patch_size=4,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=256,
    max_pixels=65_536,
    image_mean=(0.0, 0.0, 0.0),  # the tower below fails at negative values
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)
CLIENTS = 4
SOUND_EVERY = 100


async def fuzz(files: int, seed: int) -> dict[str, Any]:
    """Sends the files; returns how many came to what.

    Raises:
        AssertionError: a file was neither encoded nor refused as the client's, or a sound image
            was not encoded.
    """
    plan = image_plan(SETTINGS, IMAGES)
    box = new_box(plan)
    replica = Replica(SETTINGS, plan, FakeTower(), box)
    nursery = box._nursery._process.pid
    found: collections.Counter[str] = collections.Counter()
    deaths = _count_deaths(box)
    work = iter(track(list(mutated(files, seed)), "files", console=Console(stderr=True)))
    sound = originals()

    async def client() -> None:
        for number, data in enumerate(work):
            found[await _outcome(replica, data)] += 1
            if number % SOUND_EVERY == 0:
                assert await _outcome(replica, sound[number % len(sound)]) == "encoded"

    try:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        assert box._nursery._process.pid == nursery, "the nursery died"
    finally:
        box.close()
    return {"outcomes": dict(found), "workers_that_died": len(deaths)}


async def _outcome(replica: Replica, data: bytes) -> str:
    answer = await replica.encode(EncodeJob(source=EncodedImage(data=data)).to_plain())
    if "error" not in answer:
        return "encoded"
    reason = Reason(answer["error"]["reason"])
    assert error_for(reason, "").kind.http_status == 400, answer
    assert answer["error"]["param"] == "image"
    return reason.value


def _count_deaths(box: ParserBox) -> list[Any]:
    """Grows by one with every worker that is replaced from now on."""
    deaths: list[Any] = []
    replace = box._replace

    def count(worker: Any) -> None:
        deaths.append(worker)
        replace(worker)

    box._replace = count  # type: ignore[method-assign]
    return deaths


def main() -> int:
    """Runs and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Damaged images for a replica.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    found = asyncio.run(fuzz(arguments.files, arguments.seed))
    found |= {"files": arguments.files, "seconds": round(time.monotonic() - began_s, 1)}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
