"""PDFs as clients send them, what they may be, and their pages as a model sees them.

Files are never opened in the gateway: the vision tier makes the pages.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from gateway.media.data_urls import data_url_bytes
from gateway.media.images import TierLimits
from gateway.media.sources import ByteLimit
from protos.media import limits as defaults
from protos.media.limits import invalid_pdf, pdf_too_large
from protos.wire.errors import InvalidRequest

_SIGNATURE = b"%PDF-"
_BEFORE_IT = b"\xef\xbb\xbf \t\r\n\0"  # what some writers put there


class Page(NamedTuple):
    """One page: a PNG, and the text in it, which may be empty."""

    image: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PdfLimits:
    """What the PDFs of one request may be, and the longer side of a page's image, pixels."""

    max_bytes: int = defaults.MAX_PDF_BYTES  # of one file
    max_pages: int = defaults.MAX_PDF_PAGES  # of all files
    page_pixels: int = defaults.PDF_PAGE_PIXELS

    def under(self, tiers: Iterable[TierLimits]) -> Self:
        """The lower of these limits and those of every vision tier."""
        limits = self
        for tier in tiers:
            limits = replace(
                limits,
                max_bytes=min(limits.max_bytes, tier.max_pdf_bytes or limits.max_bytes),
                page_pixels=min(limits.page_pixels, math.isqrt(tier.max_image_pixels)),
            )
        return limits

    @property
    def file(self) -> ByteLimit:
        """What one file may have."""
        return ByteLimit(most=self.max_bytes, error=_too_many_bytes)

    def check(self, data: bytes, *, field: str) -> None:
        """Checks a file's size, before the vision tier is asked anything.

        Raises:
            InvalidRequest: PDF_TOO_LARGE, or INVALID_PDF, an empty one.
        """
        if not data:
            raise invalid_pdf(field, "is an empty PDF")
        self.file.check(len(data), field=field)

    def check_pages(self, pages: int) -> None:
        """Compares the pages of a request's PDFs with the limit.

        Raises:
            InvalidRequest: PDF_TOO_LARGE.
        """
        if pages > self.max_pages:
            raise pdf_too_large(
                "messages", "pages in all PDFs", pages, self.max_pages, setting="max_pdf_pages"
            )


def is_pdf(data: bytes) -> bool:
    """Whether a file says that it is a PDF."""
    return data[: defaults.PDF_HEAD_BYTES].lstrip(_BEFORE_IT).startswith(_SIGNATURE)


def file_bytes(text: str, *, field: str) -> bytes:
    """The bytes of a file in base64, or in a `data:` URL.

    Raises:
        InvalidRequest: INVALID_IMAGE, not base64.
    """
    url = text if text[:5].lower() == "data:" else f"data:;base64,{text}"
    return data_url_bytes(url, field=field, most=None)


def _too_many_bytes(field: str, size: int, most: int) -> InvalidRequest:
    return pdf_too_large(field, "bytes", size, most, setting="max_pdf_mib")
