"""Pages of PDFs that are remembered: how many, and what they cost their request."""

from typing import Any, cast

import pytest

from gateway.media.pdfs import Page, PdfLimits
from gateway.request.conversation import FilePart
from gateway.tiers import readings
from gateway.tiers.readings import Renderings
from gateway.tiers.vision import VisionClient
from protos.wire.errors import InvalidRequest, Overloaded


class Drawing:
    """Makes as many pages of ten bytes as a file has bytes, and notes its calls."""

    def __init__(self) -> None:
        self.files: list[bytes] = []

    async def render(self, file: bytes, limits: PdfLimits, **_: Any) -> tuple[Page, ...]:
        self.files.append(file)
        return tuple(Page(b"image", "text!") for _ in file)


async def read(
    renderings: Renderings, *files: bytes, most: int = 9, room: int = 1000
) -> dict[str, FilePart]:
    left = room

    def hold(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise Overloaded("full")

    parts = {f"messages[0].content[{at}]": FilePart(data=file) for at, file in enumerate(files)}
    limits = PdfLimits(max_pages=most)
    return await renderings.of(parts, limits, request_id="r", by_s=0.0, hold=hold)


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


@pytest.fixture
def renderings(drawing: Drawing) -> Renderings:
    return Renderings(cast(VisionClient, drawing))


async def test_pages_are_made_once_and_put_at_their_places(
    renderings: Renderings, drawing: Drawing
) -> None:
    found = await read(renderings, b"ab", b"c", b"ab")
    assert [len(part.pages) for part in found.values()] == [2, 1, 2]
    assert drawing.files == [b"ab", b"c"]


async def test_what_is_asked_for_least_is_forgotten_first(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "_REMEMBERED_BYTES", 40)
    renderings = Renderings(cast(VisionClient, drawing))
    await read(renderings, b"ab", b"cd", b"ab", b"ef")
    drawing.files.clear()
    await read(renderings, b"ab", b"ef")
    assert drawing.files == []
    await read(renderings, b"cd")
    assert drawing.files == [b"cd"]
    await read(renderings, b"larger")  # than all that may be remembered
    await read(renderings, b"larger")
    assert drawing.files == [b"cd", b"larger", b"larger"]


async def test_pages_count_together_and_take_room(renderings: Renderings, drawing: Drawing) -> None:
    await read(renderings, b"abc", b"d", most=4, room=40)
    with pytest.raises(InvalidRequest) as caught:
        await read(renderings, b"abc", b"de", b"f", most=4)
    assert caught.value.param == "messages"
    with pytest.raises(Overloaded):
        await read(renderings, b"abc", b"d", room=39)
    assert drawing.files == [b"abc", b"d", b"de"]
