"""The model this gateway serves, as clients see it."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.media.images import MediaLimits
from gateway.media.pdfs import PdfLimits
from gateway.media.sizing import LOW_DETAIL_TOKENS
from gateway.media.videos import VideoLimits
from protos.media.formats import FORMATS
from protos.media.images import ImageSettings
from protos.media.videos import FORMATS as VIDEO_FORMATS
from protos.media.videos import VideoSettings
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import ModelNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Its name, what its bundle presets, and a fingerprint that changes with the bundle."""

    name: str
    presets: decoder_pb2.SamplingParams  # the checkpoint's, for what a client leaves out
    bundle_digest: str
    created: int = field(default_factory=lambda: int(time.time()))  # Unix seconds

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`."""
        return f"tandem-{self.bundle_digest[:12]}"

    def check(self, wanted: str | None) -> None:
        """Compares the model a client asks for; None and "" ask for the one there is.

        Raises:
            ModelNotFound: another model.
        """
        if wanted and wanted != self.name:
            raise ModelNotFound(
                f"the model is not served here, expected {self.name}", param="model"
            )

    def card(
        self,
        *,
        context_length: int,
        limits: MediaLimits,
        settings: ImageSettings,
        videos: VideoLimits,
        pdfs: PdfLimits,
        video_settings: VideoSettings,
    ) -> dict[str, Any]:
        """OpenAI's model object, and what the model takes.

        Args:
            context_length: Most tokens of prompt and answer.
            limits: What images of a request may be.
            settings: The checkpoint's image settings.
            videos: What videos of a request may be.
            pdfs: What PDFs of a request may be.
            video_settings: The checkpoint's.
        """
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "tandem",
            "context_length": context_length,
            "input_modalities": ["text", "image", "video"],
            "output_modalities": ["text"],
            "image_limits": _image_limits(limits, settings),
            "video_limits": _video_limits(videos, video_settings),
            "pdf_limits": asdict(pdfs),
        }


def _image_limits(limits: MediaLimits, settings: ImageSettings) -> dict[str, Any]:
    """A file above a limit is refused; an image above `max_tokens` is resized to it."""
    pixels_per_token = settings.factor**2
    largest = settings.max_pixels // pixels_per_token
    return {
        "formats": [kind.name for kind in FORMATS],
        "max_images": limits.max_request_images,
        "max_bytes": limits.max_image_bytes,
        "max_pixels": limits.max_image_pixels,
        "max_tokens": limits.max_image_tokens or largest,
        "default_max_tokens": min(limits.max_image_tokens or largest, largest),
        "low_detail_tokens": LOW_DETAIL_TOKENS,
        "pixels_per_token": pixels_per_token,
    }


def _video_limits(limits: VideoLimits, settings: VideoSettings) -> dict[str, Any]:
    """A file above a limit is refused; a video above `max_tokens` is resized to it."""
    return {
        "formats": list(VIDEO_FORMATS),
        "max_videos": limits.max_request_videos,
        "max_bytes": limits.max_bytes,
        "max_seconds": limits.max_seconds,
        "max_frames": min(limits.most_frames, settings.sampling.max_frames),
        "max_tokens": limits.max_tokens,
        "default_fps": settings.sampling.fps,
    }
