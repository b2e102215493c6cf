"""What a gateway's settings and its bundle mean to its parts."""

import math
from collections.abc import Callable

from gateway.access.served import ServedModel
from gateway.access.tenants import Tenants
from gateway.brought.features import BroughtRules, FeatureShape
from gateway.config import GatewayConfig
from gateway.generation import Moving
from gateway.media.images import MediaLimits
from gateway.media.pdfs import PdfLimits
from gateway.media.videos import VideoLimits
from gateway.prompt.inputs import PromptLimits
from gateway.request.deadlines import Patience
from gateway.request.sampling import presets
from protos.bundle.manifest import Bundle, Manifest
from protos.media.limits import MAX_REQUEST_PIXELS
from protos.wire.channels import MIB


def prompt_limits(config: GatewayConfig) -> PromptLimits:
    """What one request may ask of the prompt builder."""
    media = MediaLimits(
        max_image_bytes=int(config.max_image_mib * MIB),
        max_image_pixels=config.max_image_pixels,
        max_request_pixels=max(MAX_REQUEST_PIXELS, config.max_image_pixels),
        max_image_tokens=config.max_image_tokens,
    )
    videos = VideoLimits(
        max_bytes=int(config.max_video_mib * MIB),
        max_seconds=config.max_video_seconds,
        max_frames=config.max_video_frames,
        max_tokens=config.max_video_tokens,
        max_frame_pixels=config.max_image_pixels,
    )
    pdfs = PdfLimits(
        max_bytes=int(config.max_pdf_mib * MIB),
        max_pages=config.max_pdf_pages,
        page_pixels=min(config.pdf_page_pixels, math.isqrt(config.max_image_pixels)),
    )
    return PromptLimits(media=media, videos=videos, pdfs=pdfs)


def patience_of(config: GatewayConfig) -> Patience:
    """How long requests and their parts may take."""
    return Patience(
        request_s=config.request_deadline_s,
        stream_s=config.stream_deadline_s,
        stream_idle_s=config.stream_idle_s,
        encode_s=config.encode_deadline_s,
        encode_patches_per_s=config.encode_patches_per_s,
    )


def moving_of(config: GatewayConfig, is_leaving: Callable[[], bool]) -> Moving:
    """How far answers are moved; see `Moving`."""
    return Moving(max_moves=config.max_moves, wait_s=config.move_wait_s, is_leaving=is_leaving)


def brought_rules(manifest: Manifest, tenants: Tenants) -> BroughtRules:
    """What features of callers must be like, and what names them."""
    shape = FeatureShape(1 + manifest.deepstack_level_count, manifest.text.hidden_size)
    return BroughtRules(shape, tenants.brought_key)


def served_model(config: GatewayConfig, bundle: Bundle) -> ServedModel:
    """The model as clients see it."""
    return ServedModel(
        name=config.model_name or bundle.manifest.model_id,
        presets=presets(bundle.manifest.generation),
        bundle_digest=bundle.digest,
    )
