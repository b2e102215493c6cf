"""Settings of what images, videos and PDFs may be, and where they are fetched from."""

from dataclasses import dataclass
from pathlib import Path

from gateway.media.sources import FetchLimits, MediaHost, MediaPolicy, networks
from gateway.settings.entries import entries
from protos.media.limits import (
    LEAST_PAGE_PIXELS,
    MAX_ASPECT_RATIO,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_TOKENS,
    MAX_PDF_BYTES,
    MAX_PDF_PAGES,
    MAX_VIDEO_BYTES,
    MAX_VIDEO_FRAMES,
    MAX_VIDEO_SECONDS,
    MAX_VIDEO_TOKENS,
    MOST_PAGE_PIXELS,
    MOST_PDF_PAGES,
    PDF_PAGE_PIXELS,
    PILLOW_PIXELS,
)
from protos.process.settings import SettingError, setting
from protos.wire.channels import MIB


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """Images, videos and PDFs."""

    max_image_mib: float = setting(
        "largest file of an image, MiB; the vision tier's limit applies where it is lower",
        default=MAX_IMAGE_BYTES / MIB,
        above=0,
    )
    max_image_pixels: int = setting(
        "most pixels of an image before resizing; the vision tier's limit applies where it is"
        " lower",
        default=MAX_IMAGE_PIXELS,
        least=1,
        most=PILLOW_PIXELS,
    )
    max_image_tokens: int = setting(
        "tokens that a larger image is resized to; the default is for CPUs, 4096 suits a GPU",
        default=MAX_IMAGE_TOKENS,
        least=MAX_ASPECT_RATIO,  # the thinnest image has a token for each of its squares
    )
    max_video_mib: float = setting(
        "largest file of a video, MiB; max_body_bytes and the vision tier's limit apply where they"
        " are lower",
        default=MAX_VIDEO_BYTES / MIB,
        above=0,
    )
    max_video_seconds: float = setting(
        "longest video, seconds; the vision tier's limit applies where it is lower",
        default=MAX_VIDEO_SECONDS,
        above=0,
    )
    max_video_frames: int = setting(
        "most frames of a video that are seen", default=MAX_VIDEO_FRAMES, least=2, most=2048
    )
    max_video_tokens: int = setting(
        "tokens that a larger video is resized to; the default is for CPUs, 12288 suits a GPU",
        default=MAX_VIDEO_TOKENS,
        least=2,
    )
    max_pdf_mib: float = setting(
        "largest PDF, MiB; max_body_bytes and the vision tier's limit apply where they are lower",
        default=MAX_PDF_BYTES / MIB,
        above=0,
    )
    max_pdf_pages: int = setting(
        "most pages of all PDFs of a request",
        default=MAX_PDF_PAGES,
        least=1,
        most=MOST_PDF_PAGES,
    )
    pdf_page_pixels: int = setting(
        "longer side of a PDF's page as an image, pixels; the default reads 10 points on A4",
        default=PDF_PAGE_PIXELS,
        least=LEAST_PAGE_PIXELS,
        most=MOST_PAGE_PIXELS,
    )
    media_hosts: str | None = setting(
        "hosts that images are fetched from by http and https URLs, comma-separated, as in"
        " media.example, *.media.example or media.example:8443; unset: none",
        default=None,
    )
    public_media: bool = setting(
        "fetch images from every public host, on the ports of http and https", default=False
    )
    media_networks: str | None = setting(
        "networks, as in 10.1.0.0/16, comma-separated, that images are fetched from though they"
        " are not public; unset: none",
        default=None,
    )
    media_folder: str | None = setting(
        "folder below which images are read by file: URLs; unset: none are", default=None
    )
    media_connect_s: float = setting(
        "seconds to reach the server of an image or video", default=2.0, above=0
    )
    media_fetch_s: float = setting(
        "seconds to fetch an image or video in all", default=5.0, above=0
    )
    media_parallel: int = setting("images and videos fetched at the same time", default=16, least=1)

    def check_media(self) -> None:
        """Checks what these settings say.

        Raises:
            SettingError: no host, no network, or no folder.
        """
        try:
            _ = self.media_policy
        except ValueError as error:
            raise SettingError(f"media_hosts or media_networks: {error}") from error
        if self.media_folder is not None and not Path(self.media_folder).is_dir():
            raise SettingError("media_folder is no folder")

    @property
    def media_policy(self) -> MediaPolicy:
        """Where images may be fetched from."""
        return MediaPolicy(
            hosts=tuple(MediaHost.parse(entry) for entry in entries(self.media_hosts or "")),
            any_public=self.public_media,
            networks=networks(entries(self.media_networks or "")),
            folder=self.media_folder,
        )

    @property
    def fetch_limits(self) -> FetchLimits:
        """What fetching one image may take."""
        return FetchLimits(
            connect_s=self.media_connect_s,
            total_s=self.media_fetch_s,
            parallel=self.media_parallel,
        )
