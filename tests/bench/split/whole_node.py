"""One process that is both tiers, as servers are that do not split: `python -m ... BUNDLE THREADS`.

The same services, kernels and wires, on one event loop; a pass of the tower and a step of the
decoder take turns, each with all threads. Prints each tier's line of readiness.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from decoder_service.config import DecoderConfig
from decoder_service.engine.step import StepExecutor
from protos.process import logs
from protos.process.main import ServiceProcess
from tests.support.vision_without_ray import EncodersHere
from vision_service.config import VisionConfig
from vision_service.replicas import reaper
from vision_service.towers.onnx_tower import OnnxTower

DECODER = {"max_sequences": 8, "max_context": 4096, "speculation": "off"}


def taking_turns(method: Callable[..., Any], turn: threading.Lock) -> Callable[..., Any]:
    """A method that has the process's cores to itself."""

    @wraps(method)
    def alone(*arguments: Any, **named: Any) -> Any:
        with turn:
            return method(*arguments, **named)

    return alone


async def both(bundle: str, threads: int) -> None:
    """Serves until it is told to stop."""
    from decoder_service import app as decoder
    from vision_service import app as vision

    processes = {tier: ServiceProcess(tier) for tier in ("vision", "decoder")}
    encoder = VisionConfig(bundle=bundle, port=0, threads=threads, tower="fast")
    generator = DecoderConfig(bundle=bundle, port=0, threads=threads, **DECODER)  # type: ignore[arg-type]
    await asyncio.gather(
        vision.serve(encoder, processes["vision"], reaper.start()),
        decoder.serve(generator, processes["decoder"]),
    )


def main() -> int:
    """Runs until it is ended; returns the exit code."""
    turn = threading.Lock()
    OnnxTower.encode = taking_turns(OnnxTower.encode, turn)  # type: ignore[method-assign]
    StepExecutor.run = taking_turns(StepExecutor.run, turn)  # type: ignore[method-assign]
    # `app` imports the encoders when it needs them, and Ray would come with the real ones.
    module = ModuleType("vision_service.replicas.encoders")
    module.__dict__["RayEncoders"] = EncodersHere
    sys.modules[module.__name__] = module
    logs.configure("WARNING", "text")
    asyncio.run(both(sys.argv[1], int(sys.argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
