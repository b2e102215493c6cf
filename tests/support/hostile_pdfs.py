"""PDFs that no reader should be given, by what is wrong with them."""

import zlib
from collections.abc import Callable

from tests.support.pdfs import pages, pdf, squeezed, stream, written

LOCKED = (
    "/Encrypt << /Filter /Standard /V 1 /R 2 /O (01234567890123456789012345678901)"
    " /U (01234567890123456789012345678901) /P -4 >> /ID [(a)(b)]"
)
GOOD = pages(written("Good day"))


def _image(width: int, height: int) -> bytes:
    entries = (
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB"
        " /BitsPerComponent 8 /Filter /FlateDecode"
    )
    return pages("99 0 0 99 0 0 cm /X0 Do", more={1000: stream(zlib.compress(bytes(99)), entries)})


def laughs(depth: int = 12, width: int = 10) -> bytes:
    """Forms that draw the next one ten times each."""
    forms: dict[int, bytes | str] = {}
    for number in range(1000, 1000 + depth):
        inner = f"/Resources << /XObject << /X {number + 1} 0 R >> >>"
        entries = f"/Type /XObject /Subtype /Form /BBox [0 0 99 99] {inner}"
        forms[number] = stream(b"/X Do\n" * width, entries)
    forms[1000 + depth] = stream(b"0 0 1 1 re f", "/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    return pages("/X0 Do", more=forms)


# Refused by name, each before it costs anything worth naming.
REFUSED: dict[str, Callable[[], bytes]] = {
    "head alone": lambda: b"%PDF-1.7\n",
    "cut off": lambda: GOOD[: len(GOOD) // 3],
    "no pages": pages,
    "no catalog": lambda: pdf({1: "<< >>"}),
    "encrypted": lambda: pages(written("x"), trailer=LOCKED),
    "as large as ISO allows": lambda: pages(written("x"), size=(14400, 14400)),
    "a kilometre wide": lambda: pages(written("x"), size=(3e6, 200)),
    "a thread": lambda: pages(written("x"), size=(3, 3000)),
    "a page that is not there": lambda: GOOD.replace(b"/Count 1", b"/Count 3"),
    "pages that are their own parent": lambda: GOOD.replace(b"/Kids [10 0 R]", b"/Kids [02 0 R]"),
}
# Opened; what of them makes no sense is left out, as in browsers.
READ: dict[str, Callable[[], bytes]] = {
    "a table that lies": lambda: GOOD.replace(b"00000 n", b"99999 n"),
    "a table far away": lambda: GOOD.replace(b"startxref\n", b"startxref\n9999"),
    "a table of a million": lambda: GOOD.replace(b"xref\n0 12", b"xref\n0 99"),
    "an image of ten gigabytes": lambda: _image(60_000, 60_000),
    "ten megabytes out of ten kilobytes": lambda: pages(squeezed(bytes(10_000_000))),
    "squeezed ten times": lambda: pages(squeezed(written("deep").encode(), 10)),
    "a script": lambda: pages(
        written("x"), catalog_entries="/OpenAction << /S /JavaScript /JS (while (1) {}) >>"
    ),
    "a launch": lambda: pages(
        written("x"), catalog_entries="/OpenAction << /S /Launch /F (/bin/true) >>"
    ),
}
