"""Pages of a PDF as PNGs and texts, by PDFium, which is what Chrome shows PDFs with.

What happens to a file, in this order:
  * it is opened without a password; an encrypted, broken or empty one is refused;
  * its pages are counted before one is drawn; too many are refused, none is left out;
  * each is drawn on white, turned as it says, with its notes and what was typed into its forms,
    so large that its longer side has the pixels that were asked for;
  * the text within the page is taken from its text layer, where it has one.
This build of PDFium has no JavaScript and no XFA. Actions, links and attachments are not looked at.
"""

import io
import math
import re
from collections.abc import Iterator
from typing import Any

import pypdfium2
from PIL import Image

from protos.media.limits import MAX_ASPECT_RATIO, invalid_pdf, pdf_too_large
from protos.wire.errors import InvalidRequest, ServiceError
from vision_service.jobs import Page
from vision_service.pdfs.limits import FIELD, MAX_IMAGES_BYTES, MAX_PAGE_POINTS, MAX_TEXT_BYTES

_UNREADABLE = "is no PDF that can be read"  # follows "the pdf"
_COMPRESSION = 1  # of 9: a page of text takes 10 ms instead of 60, and is half as large again
# What PDFium writes for a hyphen at a line's end, and what no text needs.
_HYPHENS = re.compile("[\x02\ufffe]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def rendered(data: bytes, *, page_pixels: int, max_pages: int) -> Iterator[Page]:
    """Every page of a PDF, in order.

    Args:
        data: The file.
        page_pixels: The longer side of each image.
        max_pages: Most pages.

    Raises:
        InvalidRequest: INVALID_PDF or PDF_TOO_LARGE.
    """
    try:
        with pypdfium2.PdfDocument(data) as document:
            _check_count(len(document), max_pages)
            document.init_forms()  # what was typed is drawn by this alone
            yield from _pages(document, page_pixels)
    except (ServiceError, MemoryError):
        raise
    except pypdfium2.PdfiumError as error:
        is_locked = error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD
        raise invalid_pdf(FIELD, "is encrypted" if is_locked else _UNREADABLE) from error
    except Exception as error:  # its wrapper raises nearly anything on hostile bytes
        raise invalid_pdf(FIELD, _UNREADABLE) from error


def _check_count(count: int, most: int) -> None:
    if count < 1:
        raise invalid_pdf(FIELD, "has no pages")
    if count > most:
        raise pdf_too_large(FIELD, "pages", count, most, setting="max_pdf_pages")


def _pages(document: Any, page_pixels: int) -> Iterator[Page]:
    size = 0
    for place in range(len(document)):
        page = document[place]
        try:
            scale = _scale(page, place + 1, page_pixels)
            image = _png(page.render(scale=scale, rev_byteorder=True))
            text = _text(page, place + 1)
        finally:
            page.close()
        size += len(image)
        if size > MAX_IMAGES_BYTES:
            unit, most = "bytes or more in its pages' images", MAX_IMAGES_BYTES
            raise pdf_too_large(FIELD, unit, size, most, setting="pdf_page_pixels")
        yield Page(image, text)


def _scale(page: Any, number: int, page_pixels: int) -> float:
    """Pixels a point; sides are rounded up, and none becomes longer than wanted."""
    sides: tuple[float, float] = page.get_size()
    short, long = sorted(sides)
    if not 0 < short <= long < MAX_PAGE_POINTS:
        raise _bad_page(
            number, f"{short:.6g} x {long:.6g} points, expected sides below {MAX_PAGE_POINTS:.6g}"
        )
    if long > MAX_ASPECT_RATIO * short:
        fault = f"expected an aspect ratio of at most {MAX_ASPECT_RATIO}"
        raise _bad_page(number, f"{short:.6g} x {long:.6g} points, {fault}")
    scale = page_pixels / long
    while math.ceil(long * scale) > page_pixels:
        scale = math.nextafter(scale, 0.0)
    return scale


def _bad_page(number: int, fault: str) -> InvalidRequest:
    return invalid_pdf(FIELD, f"has a page {number} of {fault}")


def _png(bitmap: Any) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(bitmap.to_numpy()).save(file, "PNG", compress_level=_COMPRESSION)
        bitmap.close()
        return file.getvalue()


def _text(page: Any, number: int) -> str:
    """What of the text layer lies within the page, in the order of the file."""
    layer = page.get_textpage()
    try:
        _check_text(layer.count_chars(), number)  # taking them takes its time
        text = layer.get_text_bounded().replace("\r\n", "\n")
    finally:
        layer.close()
    text = _CONTROLS.sub("", _HYPHENS.sub("-", text)).strip()
    _check_text(len(text.encode()), number)
    return text


def _check_text(size: int, number: int) -> None:
    if size > MAX_TEXT_BYTES:
        unit = f"bytes of text on page {number}"
        raise pdf_too_large(FIELD, unit, size, MAX_TEXT_BYTES, setting="fixed")
