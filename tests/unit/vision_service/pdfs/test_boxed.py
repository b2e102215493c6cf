"""PDFs in real workers: what crosses their border, and files that try to end them."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protos.wire.errors import InvalidRequest, Reason
from tests.support.hostile_pdfs import GOOD, READ, REFUSED, laughs
from tests.support.pdfs import box, pages, squeezed, stream, written
from vision_service.pdfs.boxed import BoxedPdfs
from vision_service.pdfs.pages import rendered

FILES = (
    pages(written("one") + box(0, 1, 0, (5, 5, 20, 20)), written("two")),
    pages(squeezed(written("three").encode())),
    pages("9 0 0 9 0 0 cm /X0 Do", more={1000: stream(b"0 0 9 9 re f", "/Subtype /Form")}),
    *(READ[case]() for case in ("squeezed ten times", "an image of ten gigabytes", "a launch")),
)
MUTATIONS = 300
OPTIONS = {"page_pixels": 64, "max_pages": 4}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pdfs() -> AsyncIterator[BoxedPdfs]:
    reading = BoxedPdfs(max_bytes=1 << 20, limit_s=1.0)
    yield reading
    reading.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_pages_cross_the_border_as_they_are(pdfs: BoxedPdfs) -> None:
    for file in FILES:
        assert await pdfs.render(file, **OPTIONS) == list(rendered(file, **OPTIONS))


async def test_a_file_that_is_too_large_is_refused_unread(pdfs: BoxedPdfs) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await pdfs.render(GOOD + bytes(1 << 20), **OPTIONS)
    assert (caught.value.reason, caught.value.param) == (Reason.PDF_TOO_LARGE, "pdf")


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_crosses_the_border(pdfs: BoxedPdfs, case: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await pdfs.render(REFUSED[case](), page_pixels=1280, max_pages=4)
    assert caught.value.param == "pdf"


async def test_a_file_that_ends_two_workers_is_refused_by_its_digest_and_others_are_read(
    pdfs: BoxedPdfs, caplog: pytest.LogCaptureFixture
) -> None:
    bomb, good = laughs(), asyncio.create_task(pdfs.render(FILES[0], **OPTIONS))
    with pytest.raises(InvalidRequest) as caught:
        await pdfs.render(bomb, **OPTIONS)
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_PDF, "pdf")
    assert [page.text for page in await good] == ["one", "two"]
    assert caplog.text.count("attempt") == 2
    begun_s = asyncio.get_running_loop().time()
    with pytest.raises(InvalidRequest):
        await pdfs.render(bomb, **OPTIONS)
    assert asyncio.get_running_loop().time() - begun_s < 0.5
    assert caplog.text.count("attempt") == 2
    assert len(await pdfs.render(GOOD, **OPTIONS)) == 1


def mutated(rng: random.Random, files: tuple[bytes, ...] = FILES) -> bytes:
    """A PDF with some bytes changed, dropped, repeated, or taken from another one."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(data)), rng.random()
        if kind < 0.4:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind < 0.6:
            data[at : at + 1] = rng.choice((b"-", b"9", b"0 R ", b"<<", b">>", b"[", b"(", b"%"))
        elif kind < 0.75:
            del data[at : at + rng.choice((1, 4, 64))]
        elif kind < 0.9:
            data[at:at] = data[at : at + rng.choice((1, 8, 256))]
        else:
            other = rng.choice(files)
            data[at:at] = other[(start := rng.randrange(len(other))) : start + 64]
    return bytes(data)


async def test_mutated_files_are_read_or_refused_and_their_readers_live(
    pdfs: BoxedPdfs, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(7)
    read = 0
    for _ in range(MUTATIONS):
        try:
            read += bool(await pdfs.render(mutated(rng), **OPTIONS))
        except InvalidRequest as error:
            assert error.reason in (Reason.INVALID_PDF, Reason.PDF_TOO_LARGE), error.message
            assert error.param == "pdf"
    assert 0 < read < MUTATIONS
    assert caplog.text == ""
    assert len(await pdfs.render(GOOD, **OPTIONS)) == 1
