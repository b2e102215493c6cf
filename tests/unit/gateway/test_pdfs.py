"""PDFs from the doors to both tiers: pages as images and texts, limits, caches and usage."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.tiers.readings import Renderings
from protos.bundle.manifest import Bundle
from protos.wire.errors import InvalidRequest, Reason, Unavailable, Unsupported
from tests.support.prompts import png
from tests.unit.gateway.media.media_server import MediaServer, file, media_server
from tests.unit.gateway.stage import Stage, data_url, staged

PDF = b"%PDF-1.7 of a few pages"
PAGES = ((png(64, 64), "one"), (png(96, 64), ""), (png(64, 96), "three <|im_end|>"))
PART = "messages[0].content[0]"
TEXT = {"type": "text", "text": "What?"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


def url_of(data: bytes) -> str:
    return f"data:application/pdf;base64,{base64.b64encode(data).decode()}"


def part(data: bytes = PDF, name: str | None = "a.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": url_of(data), "filename": name}}


def about(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*parts, TEXT]}]


def spelled_out(name: str = "a.pdf, page") -> list[dict[str, Any]]:
    """The parts that a PDF of `PAGES` stands for."""
    parts: list[dict[str, Any]] = []
    for number, (image, text) in enumerate(PAGES, start=1):
        parts.append({"type": "text", "text": f"{name} {number} of 3:\n"})
        parts.append({"type": "image_url", "image_url": {"url": data_url(image)}})
        parts.append({"type": "text", "text": f"\n{text}\n" if text else "\n"})
    return parts


@pytest.fixture
def paged(stage: Stage) -> Stage:
    stage.vision.pages = PAGES
    prompts = stage.gateway._service.pipeline.prompts
    prompts._renderings = Renderings(prompts._vision)  # which remembers nothing yet
    return stage


def starts(stage: Stage) -> list[Any]:
    """What decoders were asked, but for what names the requests."""
    return [
        (list(start.input_ids), start.position_ids, list(start.visual_spans))
        for start in stage.decoder.starts
    ]


async def test_a_pdf_is_its_pages_as_images_each_with_its_text(paged: Stage) -> None:
    by_file = await paged.post(messages=about(part()))
    assert by_file.status_code == 200, by_file.text
    by_parts = await paged.post(messages=about(*spelled_out()))
    first, second = starts(paged)
    assert first == second
    assert by_file.json()["usage"] == by_parts.json()["usage"]
    usage = by_file.json()["usage"]["prompt_tokens_details"]
    assert usage["image_tokens"] == sum(span.length for span in first[2]) > 0
    images = [call.image for call in paged.vision.requests]
    assert sorted(images[:3]) == sorted(image for image, _ in PAGES) == sorted(images[3:])
    (call,) = paged.vision.renderings
    assert (call.file, call.page_pixels, call.max_pages) == (PDF, 1280, 20)


async def test_every_door_takes_pdfs_and_says_the_same(paged: Stage) -> None:
    encoded = base64.b64encode(PDF).decode()
    asked = {"type": "input_text", "text": "What?"}
    document = {"type": "base64", "media_type": "application/pdf", "data": encoded}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": about(part(name=None))})
    ]
    for given in (
        {"file_data": encoded},
        {"file_data": url_of(PDF), "detail": "high"},
        {"file_url": url_of(PDF)},
    ):
        content = [{"type": "input_file", **given}, asked]
        calls.append(("/v1/responses", {"input": [{"role": "user", "content": content}]}))
    document_part = {"type": "document", "source": document}
    messages = [{"role": "user", "content": [document_part, TEXT]}]
    calls.append(("/v1/messages", {"messages": messages, "max_tokens": 9}))
    for path, body in calls:
        answer = await paged.http.post(path, json={"model": "test", **body})
        assert answer.status_code == 200, answer.text
    await paged.post(messages=about(*spelled_out("Page")))
    assert all(start == starts(paged)[0] for start in starts(paged))
    count = await paged.http.post(
        "/v1/messages/count_tokens", json={"model": "test", "messages": messages}
    )
    tokens = await paged.http.post(
        "/v1/responses/input_tokens", json={"model": "test", **calls[1][1]}
    )
    length = len(paged.decoder.starts[0].input_ids)
    assert count.json()["input_tokens"] == tokens.json()["input_tokens"] == length
    assert len(paged.vision.renderings) == 1


async def test_low_detail_makes_pages_small(paged: Stage) -> None:
    paged.vision.pages = ((png(1280, 900), "one"),)
    for detail in ("low", "auto"):
        content = [{"type": "input_file", "file_data": url_of(PDF), "detail": detail}]
        body = {"model": "test", "input": [{"role": "user", "content": content}]}
        assert (await paged.http.post("/v1/responses", json=body)).status_code == 200
    low, auto = (call.expected_grid_thw for call in paged.vision.requests)
    assert low.h * low.w <= 4 * 256 < auto.h * auto.w


async def test_a_follow_up_makes_no_pages_again(paged: Stage) -> None:
    content = [{"type": "input_file", "file_data": url_of(PDF)}]
    first = await paged.http.post(
        "/v1/responses",
        json={
            "model": "test",
            "input": [{"role": "user", "content": content}],
        },
    )
    second = {"model": "test", "input": "And?", "previous_response_id": first.json()["id"]}
    assert (await paged.http.post("/v1/responses", json=second)).status_code == 200
    before, after = (list(start.input_ids) for start in paged.decoder.starts)
    common = len(before) - 3  # what opens an answer is closed in the second
    assert after[:common] == before[:common]
    assert len(paged.vision.renderings) == 1


async def test_pages_beside_images_of_the_clients_own_count_apart(paged: Stage) -> None:
    paged.vision.pages = PAGES[:2] * 10
    images = [{"type": "image_url", "image_url": {"url": data_url(png(32, 32))}}] * 16
    response = await paged.post(messages=about(part(), *images))
    assert response.status_code == 200, response.text
    response = await paged.post(messages=about(part(), *images, images[0]))
    assert response.json()["error"]["code"] == "image_too_large"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("pdf is encrypted", reason=Reason.INVALID_PDF, param="pdf"), "invalid_pdf"),
        (
            InvalidRequest("pdf has 21 pages", reason=Reason.PDF_TOO_LARGE, param="pdf"),
            "pdf_too_large",
        ),
        (Unsupported("pdf is a PDF, which is not read", param="pdf"), "not_supported"),
    ],
)
async def test_the_tiers_complaint_names_the_part(paged: Stage, error: Any, code: str) -> None:
    paged.vision.failures = [error]
    response = await paged.post(messages=about(part()))
    found = response.json()["error"]
    assert (response.status_code, found["code"], found["param"]) == (400, code, PART)
    assert found["message"] == error.message.replace("pdf", PART, 1)
    assert (await paged.post(messages=about(part()))).status_code == 200


async def test_a_call_that_a_dying_tier_did_not_answer_is_made_once_more(paged: Stage) -> None:
    paged.vision.failures = [Unavailable("dying")]
    assert (await paged.post(messages=about(part()))).status_code == 200
    assert len(paged.vision.renderings) == 2


async def test_a_tier_of_a_release_without_pdfs_is_named(paged: Stage) -> None:
    paged.vision.reads_pdfs = False
    error = (await paged.post(messages=about(part()))).json()["error"]
    assert (error["code"], error["param"]) == ("not_supported", PART)


async def test_no_pages_are_no_answer(paged: Stage) -> None:
    paged.vision.pages = ()
    response = await paged.post(messages=about(part()))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "data_loss")


@pytest_asyncio.fixture(loop_scope="module")
async def modest(bundle: Bundle) -> AsyncIterator[Stage]:
    settings = {"max_pdf_mib": 0.001, "max_pdf_pages": 5, "pdf_page_pixels": 900}
    async with staged(bundle, **settings, max_image_pixels=400_000) as stage:
        stage.will_say("Hi")
        stage.vision.pages = PAGES
        yield stage


async def test_what_is_too_much_is_refused_by_its_place_and_limit(modest: Stage) -> None:
    large = await modest.post(messages=about(part(PDF + bytes(2000))))
    empty = await modest.post(messages=about(part(b"")))
    assert modest.vision.renderings == []
    error = large.json()["error"]
    assert (error["code"], error["param"]) == ("pdf_too_large", PART)
    assert "max_pdf_mib" in error["message"]
    assert empty.status_code == 200  # no PDF, but a text without a word
    several = await modest.post(messages=about(part(), part(PDF + b" and more")))
    error = several.json()["error"]
    assert (several.status_code, error["code"], error["param"]) == (
        400,
        "pdf_too_large",
        "messages",
    )
    assert all(word in error["message"] for word in ("6", "5", "max_pdf_pages"))
    call = modest.vision.renderings[0]
    assert (call.page_pixels, call.max_pages) == (632, 5)


async def test_the_model_tells_what_pdfs_may_be(modest: Stage) -> None:
    card = (await modest.http.get("/v1/models/test")).json()
    assert card["pdf_limits"] == {"max_bytes": 1048, "max_pages": 5, "page_pixels": 632}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"type": "file"}, ".file"),
    ("chat", {"type": "file", "file": {"file_id": "f"}}, ".file.file_id"),
    ("chat", {"type": "file", "file": {"filename": "a.pdf"}}, ".file.file_data"),
    ("chat", part(b"\xff\xd8 no PDF"), ""),
    ("chat", {"type": "file", "file": {"file_data": "%%%"}}, ""),
    ("responses", {"type": "input_file", "file_id": "f"}, ".file_id"),
    ("responses", {"type": "input_file", "file_url": "ftp://x.example/a.pdf"}, ""),
    ("responses", {"type": "input_file", "file_url": "http://x/y", "file_data": "YQ=="}, ""),
    ("responses", {"type": "input_file", "file_url": "http://x.example/y.pdf"}, ""),
    ("responses", {"type": "input_file", "file_data": "YQ==", "detail": "more"}, ".detail"),
    ("messages", {"type": "document", "source": {"type": "file", "file_id": "f"}}, ".source"),
    (
        "messages",
        {"type": "document", "source": {"type": "url", "url": "http://x.example/y.pdf"}},
        ".source",
    ),
]


@pytest.mark.parametrize(("api", "given", "where"), BAD)
async def test_what_cannot_be_read_is_refused_by_name(
    stage: Stage, api: str, given: dict[str, Any], where: str
) -> None:
    messages = [{"role": "user", "content": [given]}]
    path, place = "/v1/chat/completions", f"{PART}{where}"
    body: dict[str, Any] = {"messages": messages}
    if api == "responses":
        path, body, place = "/v1/responses", {"input": messages}, f"input[0].content[0]{where}"
    elif api == "messages":
        path, body = "/v1/messages", {"messages": messages, "max_tokens": 9}
    response = await stage.http.post(path, json={"model": "test", **body})
    assert response.status_code == 400
    assert place in response.text
    assert stage.vision.renderings == []


async def test_images_and_pdfs_among_instructions_are_refused_and_never_dropped(
    paged: Stage,
) -> None:
    encoded = base64.b64encode(PDF).decode()
    image = base64.b64encode(png(32, 32)).decode()
    for kind, data in (("document", encoded), ("image", image)):
        block = {"type": kind, "source": {"type": "base64", "data": data}}
        messages: list[Any] = [{"role": "system", "content": [block]}, {"role": "system"}]
        messages[1]["content"] = "Be brief."
        body = {"model": "test", "max_tokens": 9}
        response = await paged.http.post(
            "/v1/messages",
            json={**body, "messages": [*messages, {"role": "user", "content": "Hi"}]},
        )
        assert response.status_code == 400, response.text
    assert paged.decoder.starts == []


@pytest_asyncio.fixture(loop_scope="module")
async def media() -> AsyncIterator[MediaServer]:
    async with media_server() as server:
        server.answers["/a.pdf"] = file(PDF)
        server.answers["/a.txt"] = file("Grüß Gott".encode())
        server.answers["/a.bin"] = file(b"\xff\xfe\xff")
        server.answers["/large.pdf"] = file(PDF + bytes(2 << 20))
        yield server


async def test_files_by_url_are_what_they_prove_to_be(bundle: Bundle, media: MediaServer) -> None:
    allowed = {"media_hosts": f"127.0.0.1:{media.port}", "media_networks": "127.0.0.0/8"}
    async with staged(bundle, **allowed, max_pdf_mib=1.0) as stage:
        stage.vision.pages = PAGES
        stage.will_say("Hi there")

        async def ask(**given: Any) -> Any:
            content = [{"type": "input_file", **given}]
            body = {"model": "test", "input": [{"role": "user", "content": content}]}
            return await stage.http.post("/v1/responses", json=body)

        sent = base64.b64encode("Grüß Gott".encode()).decode()
        for pair in (
            ({"file_url": media.url("/a.pdf")}, {"file_data": url_of(PDF)}),
            ({"file_url": media.url("/a.txt")}, {"file_data": sent}),
        ):
            for given in pair:
                assert (await ask(**given, filename="a")).status_code == 200
            assert starts(stage)[-1] == starts(stage)[-2]
        source = {"type": "url", "url": media.url("/a.pdf")}
        messages = [{"role": "user", "content": [{"type": "document", "source": source}]}]
        body = {"model": "test", "messages": messages, "max_tokens": 9}
        assert (await stage.http.post("/v1/messages", json=body)).status_code == 200
        for name, code in (("/a.bin", "unsupported_media"), ("/large.pdf", "pdf_too_large")):
            error = (await ask(file_url=media.url(name))).json()["error"]
            assert (error["code"], error["param"]) == (code, "input[0].content[0]")
