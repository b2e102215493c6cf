"""One vision process, from settings to a clean end."""

import asyncio
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from protos.bundle.manifest import Bundle, BundleError
from protos.media.images import SETTINGS_NAME, ImageSettings
from protos.process import logs, settings
from protos.tandem.v1 import vision_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES, GrpcServer, PortTaken
from vision_service.config import VisionConfig
from vision_service.replicas.reaper import Reaper
from vision_service.servicer import VisionServicer

if TYPE_CHECKING:
    from vision_service.replicas.ray_serve import RayEncoders

logger = logging.getLogger("vision_service")

EXIT_SETTINGS = 2
EXIT_LOST = 1


def main(reaper: Reaper) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    try:
        config = settings.load(VisionConfig, prefix="VISION", argv=sys.argv[1:], environ=os.environ)
        config.check()
        logs.configure(config.log_level)
        logger.info("settings: %s", settings.describe(config))
        bundle = Bundle.open(config.bundle)
        bundle.verify_files(("vision", "processor"))
        images = ImageSettings.from_file(bundle.path / SETTINGS_NAME)
        images.check_against(bundle.manifest.vision)
        return asyncio.run(_serve(config, bundle, reaper))
    except (settings.SettingError, BundleError, PortTaken) as error:
        sys.stderr.write(f"vision_service: {error}\n")
        return EXIT_SETTINGS
    except RuntimeError:  # Ray says so whatever kept it from starting.
        logger.exception("the vision service could not start")
        return EXIT_LOST


async def _serve(config: VisionConfig, bundle: Bundle, reaper: Reaper) -> int:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    server = GrpcServer(
        host=config.host,
        port=config.port,
        max_receive_bytes=LARGE_MESSAGE_BYTES,
        drain_timeout_s=config.drain_timeout_s,
    )
    servicer = VisionServicer(
        bundle,
        max_patches=config.max_image_patches,
        encode_timeout_s=config.encode_timeout_s,
    )
    vision_pb2_grpc.add_VisionServiceServicer_to_server(servicer, server.server)
    # Imported here so that the port is checked before the second that importing Ray takes.
    from vision_service.replicas.ray_serve import RayEncoders

    encoders = RayEncoders(config, reaper)
    try:
        async with server:
            await encoders.start(reclaim_signals=lambda: _stop_on_signals(stop))
            servicer.encoders = encoders
            await server.set_serving(True)
            _announce(server.port)
            return await _until_stopped(stop, encoders)
    finally:
        await encoders.stop()


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _until_stopped(stop: asyncio.Event, encoders: "RayEncoders") -> int:
    stopped = asyncio.create_task(stop.wait())
    lost = asyncio.create_task(encoders.lost())
    await asyncio.wait({stopped, lost}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, lost):
        task.cancel()
    if stop.is_set():
        logger.info("draining")
        return 0
    return EXIT_LOST


def _announce(port: int) -> None:
    event = {"event": "serving", "tier": "vision", "ports": {"grpc": port}}
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
