"""Pages of PDFs: what is seen, what is read, and what is refused."""

import io

import numpy as np
import numpy.typing as npt
import pypdfium2
import pytest
from PIL import Image

from protos.wire.errors import InvalidRequest, Reason
from tests.support.hostile_pdfs import READ, REFUSED
from tests.support.pdfs import box, pages, stream, written
from vision_service.jobs import Page
from vision_service.pdfs.pages import rendered


def made(file: bytes, *, page_pixels: int = 200, max_pages: int = 5) -> list[Page]:
    return list(rendered(file, page_pixels=page_pixels, max_pages=max_pages))


def pixels(page: Page) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(page.image)))


def test_pages_are_pdfiums_to_the_last_pixel_and_in_order() -> None:
    file = pages(
        box(1, 0, 0, (0, 0, 50, 50)) + written("First line", y=60),
        written("over the hills and far") + written("away", y=5),
        "",
    )
    found = made(file, page_pixels=640)
    document = pypdfium2.PdfDocument(file)
    for at, page in enumerate(found):
        drawn = document[at].render(scale=640 / 200).to_pil()
        assert np.array_equal(pixels(page), np.asarray(drawn)), at
        assert Image.open(io.BytesIO(page.image)).mode == "RGB"
    assert [page.text for page in found] == ["First line", "over the hills and far\naway", ""]
    assert made(file, page_pixels=640) == found


@pytest.mark.parametrize(
    ("size", "entries", "expected"),
    [
        ((200, 100), "", (200, 100)),
        ((100, 200), "", (100, 200)),
        ((200, 100), "/Rotate 90", (100, 200)),
        ((200, 100), "/CropBox [10 10 60 35]", (200, 100)),
        ((595.276, 841.89), "", (142, 200)),
        ((0.5, 0.25), "", (200, 100)),
        ((14_399, 7_000), "", (200, 98)),
        ((40, 0.25), "", (200, 2)),
    ],
)
def test_the_longer_side_has_the_pixels_that_were_asked_for(
    size: tuple[float, float], entries: str, expected: tuple[int, int]
) -> None:
    (page,) = made(pages("", size=size, page_entries=entries))
    assert Image.open(io.BytesIO(page.image)).size == expected


def test_text_that_lies_outside_the_page_is_not_read() -> None:
    (page,) = made(pages(written("seen") + written("hidden", x=500)))
    assert page.text == "seen"


def test_what_was_typed_into_a_form_and_a_note_are_seen() -> None:
    shown = stream(b"0 0 1 rg 0 0 100 30 re f", "/Type /XObject /Subtype /Form /BBox [0 0 100 30]")
    field = (
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (typed) /Rect [50 50 150 80]"
        " /AP << /N 1001 0 R >> /P 10 0 R >>"
    )
    note = "<< /Type /Annot /Subtype /Square /Rect [0 0 20 20] /C [1 0 0] /IC [0 1 0] >>"
    file = pages(
        "",
        page_entries="/Annots [1000 0 R 1002 0 R]",
        catalog_entries="/AcroForm << /Fields [1000 0 R] >>",
        more={1000: field, 1001: shown, 1002: note},
    )
    seen = pixels(made(file)[0])
    assert seen[35, 100].tolist() == [0, 0, 255]
    assert seen[90, 10].tolist() == [0, 255, 0]


def test_control_characters_are_no_text() -> None:
    (page,) = made(pages(written("a\x01b\x07c")))
    assert page.text.isprintable()


def test_a_page_too_many_is_refused_with_both_counts() -> None:
    file = pages("", "", "")
    assert len(made(file, max_pages=3)) == 3
    with pytest.raises(InvalidRequest) as caught:
        made(file, max_pages=2)
    assert caught.value.reason is Reason.PDF_TOO_LARGE
    assert "3 pages" in caught.value.message and "at most 2" in caught.value.message


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_and_its_reader_says_nothing_of_it(case: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        made(REFUSED[case]())
    assert caught.value.reason in (Reason.INVALID_PDF, Reason.PDF_TOO_LARGE)
    assert caught.value.param == "pdf"
    assert "PDFium" not in caught.value.message and "load" not in caught.value.message


@pytest.mark.parametrize("case", READ)
def test_an_odd_file_is_read_as_far_as_it_makes_sense(case: str) -> None:
    assert len(made(READ[case]())) == 1


@pytest.mark.parametrize("name", ["MAX_TEXT_BYTES", "MAX_IMAGES_BYTES"])
def test_what_pages_become_is_bounded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file = pages(written("hello"), written("goodbye"))
    sizes = {"MAX_TEXT_BYTES": 6, "MAX_IMAGES_BYTES": len(made(file)[0].image) + 1}
    monkeypatch.setattr(f"vision_service.pdfs.pages.{name}", sizes[name])
    with pytest.raises(InvalidRequest) as caught:
        made(file)
    assert caught.value.reason is Reason.PDF_TOO_LARGE


def test_the_library_runs_no_scripts() -> None:
    assert pypdfium2.version.PDFIUM_INFO.flags == ()  # "V8" or "XFA" would be here
