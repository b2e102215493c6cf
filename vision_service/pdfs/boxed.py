"""PDFs in the box: what the vision tier asks of its workers, and how they do it.

The tier knows a PDF by its bytes alone; whatever looks into them runs in here.
"""

from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np

from protos.media.limits import MOST_PAGE_PIXELS, pdf_too_large
from protos.wire.errors import Reason, Unsupported
from vision_service.box.files import BoxedFiles, FileKind
from vision_service.box.task import Given
from vision_service.jobs import Page
from vision_service.pdfs.limits import FIELD, MAX_IMAGES_BYTES

READS_PDFS = find_spec("pypdfium2") is not None

# What workers import before they confine themselves.
MODULES = (__name__, *(("vision_service.pdfs.pages",) if READS_PDFS else ()))
PAGES_TASK = f"{__name__}:pages_task"

# Processor seconds for all pages: one takes 30 ms, a map or a scan some hundreds.
LIMIT_S = 60.0

_WORKERS = 2  # PDFs read at once; bounds their memory
# Beside the page and what is made of all: images in it, decoded. One of 600 dots an inch has 105
# MB, and is held twice while it is made smaller.
_BYTES_BESIDE = 768 * 1024**2


class BoxedPdfs(BoxedFiles):
    """Reads PDFs; see `jobs.Pdfs`. `close` it at the end.

    Args:
        max_bytes: Largest file.
        limit_s: Processor seconds that one file may take.
    """

    def __init__(self, *, max_bytes: int, limit_s: float = LIMIT_S) -> None:
        kind = FileKind(
            field=FIELD,
            reason=Reason.INVALID_PDF,
            max_bytes=max_bytes,
            too_large=lambda size: pdf_too_large(
                FIELD, "bytes", size, max_bytes, setting="max_pdf_mib"
            ),
            workers=_WORKERS,
            memory_bytes=max_bytes * 2
            + MOST_PAGE_PIXELS**2 * 16
            + MAX_IMAGES_BYTES * 2
            + _BYTES_BESIDE,
            modules=MODULES,
            limit_s=limit_s,
        )
        super().__init__(kind)

    async def render(self, file: bytes, *, page_pixels: int, max_pages: int) -> list[Page]:
        """Makes an image and a text of every page; see `jobs.Pdfs`."""
        if not READS_PDFS:
            raise Unsupported(
                f"{FIELD} is a PDF, which this server does not read (pypdfium2 is not installed)",
                param=FIELD,
            )
        arguments = {"page_pixels": page_pixels, "max_pages": max_pages}
        found = await self.run(PAGES_TASK, file, arguments)
        (made,) = found.arrays
        pages, at = [], 0
        for image, text in found.values["sizes"]:
            middle, end = at + image, at + image + text
            pages.append(Page(made[at:middle].tobytes(), made[middle:end].tobytes().decode()))
            at = end
        return pages


def pages_task(given: Given) -> dict[str, Any]:
    """Makes pages: uint8, each image and its text in UTF-8, and {"sizes": the bytes of both}.

    Raises:
        InvalidRequest: the PDF is refused.
    """
    # Imported here, because a server without PDFium has this module too.
    from vision_service.pdfs.pages import rendered

    pages = [(page.image, page.text.encode()) for page in rendered(given.data(), **given.arguments)]
    made = given.new_array((sum(len(image) + len(text) for image, text in pages),), "uint8")
    made[:] = np.frombuffer(b"".join(chain.from_iterable(pages)), np.uint8)
    return {"sizes": [(len(image), len(text)) for image, text in pages]}
