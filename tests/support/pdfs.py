"""PDFs for tests, written out byte by byte, so that what is odd about one can be seen."""

import zlib
from collections.abc import Mapping, Sequence

FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(objects: Mapping[int, bytes | str], *, root: int = 1, trailer: str = "") -> bytes:
    """A file of these objects, with a cross-reference table that is right."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = {}
    for number, body in objects.items():
        places[number] = len(out)
        data = body.encode("latin-1") if isinstance(body, str) else body
        out += b"%d 0 obj\n%b\nendobj\n" % (number, data)
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n" % size
    for number in range(size):
        at = places.get(number)
        out += b"0000000000 65535 f \n" if at is None else b"%010d 00000 n \n" % at
    out += b"trailer\n<< /Size %d /Root %d 0 R %b >>\n" % (size, root, trailer.encode("latin-1"))
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


def stream(data: bytes, entries: str = "") -> bytes:
    """A stream object."""
    head = f"<< /Length {len(data)} {entries} >>\nstream\n".encode("latin-1")
    return head + data + b"\nendstream"


def squeezed(data: bytes, times: int = 1) -> bytes:
    """A stream object that is compressed, over and over where wanted."""
    for _ in range(times):
        data = zlib.compress(data, 9)
    return stream(data, f"/Filter [{' /FlateDecode' * times}]")


def written(text: str, *, x: int = 20, y: int = 20, size: int = 12) -> str:
    """What draws a line of text."""
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F1 {size} Tf {x} {y} Td ({escaped}) Tj ET\n"


def box(red: float, green: float, blue: float, at: Sequence[int]) -> str:
    """What draws a rectangle: x, y, width, height."""
    return f"{red} {green} {blue} rg {' '.join(map(str, at))} re f\n"


def pages(
    *drawn: str | bytes,
    size: Sequence[float] = (200, 100),
    page_entries: str = "",
    catalog_entries: str = "",
    more: Mapping[int, bytes | str] | None = None,
    trailer: str = "",
) -> bytes:
    """A PDF of these pages.

    Args:
        drawn: The content of each page; bytes are a whole stream object.
        size: Of a page, points.
        page_entries: Of every page.
        catalog_entries: Of the document.
        more: Objects from number 1000 on.
        trailer: Entries of the trailer.
    """
    numbers = range(10, 10 + 2 * len(drawn), 2)
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects: dict[int, bytes | str] = {
        1: f"<< /Type /Catalog /Pages 2 0 R {catalog_entries} >>",
        2: f"<< /Type /Pages /Kids [{kids}] /Count {len(drawn)} >>",
        3: FONT,
    }
    for number, content in zip(numbers, drawn, strict=True):
        objects[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}]"
            f" /Contents {number + 1} 0 R /Resources << /Font << /F1 3 0 R >>"
            f" {'/XObject << /X0 1000 0 R >>' if more else ''} >> {page_entries} >>"
        )
        objects[number + 1] = content if isinstance(content, bytes) else stream(content.encode())
    return pdf({**objects, **(more or {})}, trailer=trailer)
