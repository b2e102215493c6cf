"""One vision process: what is wired to what, from the settings to a clean end."""

import asyncio
import logging
from typing import TYPE_CHECKING

from protos.bundle.manifest import Bundle
from protos.media.images import SETTINGS_NAME, ImageSettings
from protos.media.limits import MAX_VIDEO_PIXELS
from protos.process.main import EXIT_LOST, ServiceProcess
from protos.process.malformed import Malformed
from protos.process.server import GrpcServer
from protos.tandem.v1 import open_inference_pb2_grpc, vision_pb2, vision_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES
from vision_service import open_inference
from vision_service.config import VisionConfig
from vision_service.jobs import EncodersNotStarted
from vision_service.open_inference import OpenInferenceServicer
from vision_service.pdfs.boxed import READS_PDFS, BoxedPdfs
from vision_service.replicas.reaper import Reaper
from vision_service.servicer import VisionServicer
from vision_service.videos.boxed import BoxedVideos
from vision_service.videos.clip import ClipLimits

if TYPE_CHECKING:
    from vision_service.replicas.encoders import RayEncoders

logger = logging.getLogger(__name__)

SERVICE = vision_pb2.DESCRIPTOR.services_by_name["VisionService"].full_name


async def serve(config: VisionConfig, process: ServiceProcess, reaper: Reaper) -> int:
    """Serves until the process is to stop, then drains.

    Returns:
        0; `EXIT_LOST` when Ray could not start or went away.

    Raises:
        SettingError, BundleError, BindError: the process cannot start.
    """
    bundle = Bundle.open(config.bundle)
    bundle.verify_files(("vision", "processor"))
    ImageSettings.from_file(bundle.path / SETTINGS_NAME).check_against(bundle.manifest.vision)
    server = GrpcServer(
        host=config.host,
        port=config.port,
        services=(SERVICE, open_inference.SERVICE),
        max_receive_bytes=LARGE_MESSAGE_BYTES,
        drain_timeout_s=config.drain_timeout_s,
        interceptors=(Malformed(),),
        credentials=config.credentials,
    )
    videos, pdfs = _videos(config, bundle), BoxedPdfs(max_bytes=config.max_pdf_bytes)
    servicer = VisionServicer(
        bundle,
        videos,
        pdfs,
        max_patches=config.max_image_patches,
        max_bytes=config.max_image_bytes,
        max_pixels=config.max_image_pixels,
        max_video_bytes=config.max_video_bytes,
        max_video_seconds=config.max_video_seconds,
        max_pdf_bytes=config.max_pdf_bytes if READS_PDFS else 0,
        encode_timeout_s=config.encode_timeout_s,
        form=config.wire_dtype,
    )
    servicer.metrics.watch_certificates(config.shown)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(servicer, server.server)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        OpenInferenceServicer(bundle, servicer), server.server
    )
    # Imported here so that the port is checked before the second that importing Ray takes.
    from vision_service.replicas.encoders import RayEncoders

    encoders = RayEncoders(config, reaper)
    try:
        metrics = servicer.metrics.serving(config.metrics_host, config.metrics_port)
        async with server:
            with metrics as metrics_port:
                if not await _started(config, process, encoders):
                    return 0
                servicer.encoders = encoders
                await server.set_serving(True)
                process.announce(grpc=server.port, metrics=metrics_port)
                return await _until_stopped(process, encoders)
    except EncodersNotStarted as error:
        logger.error("the vision service could not start: %s", error)
        return EXIT_LOST
    finally:
        videos.close()
        pdfs.close()
        await encoders.stop()


def _videos(config: VisionConfig, bundle: Bundle) -> BoxedVideos:
    pixels = min(config.max_image_pixels, MAX_VIDEO_PIXELS)
    return BoxedVideos(
        bundle,
        ClipLimits(max_pixels=pixels, max_seconds=config.max_video_seconds),
        max_bytes=config.max_video_bytes,
        max_patches=config.max_image_patches,
        limit_s=config.encode_timeout_s,
    )


async def _started(config: VisionConfig, process: ServiceProcess, encoders: "RayEncoders") -> bool:
    """Whether the encoders are there; False where the process is to stop before they are."""
    begun = asyncio.ensure_future(encoders.start(reclaim_signals=process.catch_signals))
    # A Ray of our own is up in seconds; a cluster may have no room for a replica for minutes.
    if config.ray_address is not None:
        stopped = asyncio.ensure_future(process.stopped())
        await asyncio.wait({begun, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not begun.done():
            begun.cancel()
            await asyncio.wait({begun})
            return False
    await begun
    return True


async def _until_stopped(process: ServiceProcess, encoders: "RayEncoders") -> int:
    stopped = asyncio.create_task(process.stopped())
    lost = asyncio.create_task(encoders.lost())
    await asyncio.wait({stopped, lost}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, lost):
        task.cancel()
    return 0 if process.stop.is_set() else EXIT_LOST
