"""PDFs through the three services: pages as transformers would see them, and refusals by name."""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import openresponses_types as spec
import pypdfium2
import pytest
from PIL import Image

from tests.support.bundles import bundle, checkpoint
from tests.support.hostile_pdfs import REFUSED
from tests.support.oracle import oracle
from tests.support.pdfs import box, pages, written
from tests.support.prompts import encoded
from tests.support.stack import ServedStack, Stacks

TOKENS = 12
TOLERANCE = 1e-3
PART = "messages[0].content[0]"
LEAK = re.compile(r"Traceback|/[a-z]+/[a-z]+|0x[0-9a-f]{4}|Errno|(?i:pdfium)|\.py\b")
ROOM = (200, 20)  # points; 40 x 4 tokens


def file_of(line: str) -> bytes:
    """Two pages, the first with two lines of text, the second with none."""
    first = written(line, y=12, size=6) + written("and two lines", y=3, size=6)
    return pages(
        first + box(0.2, 0.4, 0.6, (120, 2, 60, 16)),
        box(1, 0.5, 0, (0, 0, 30, 20)) + box(0, 0.3, 0.1, (120, 5, 40, 10)),
        size=ROOM,
    )


def drawn(file: bytes) -> list[Image.Image]:
    """The pages as PDFium draws them."""
    document = pypdfium2.PdfDocument(file)
    return [document[at].render(scale=1280 / ROOM[0]).to_pil() for at in range(2)]


def content_of(line: str, images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `file_of` stands for, its images in some form."""
    texts = (f"\n{line}\nand two lines\n", "\n")
    parts: list[dict[str, Any]] = []
    for at, image in enumerate(images):
        parts.append({"type": "text", "text": f"a.pdf, page {at + 1} of 2:\n"})
        parts += [image, {"type": "text", "text": texts[at]}]
    return parts


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[httpx.Client]:
    root = served.stack.http_url.removesuffix("/v1")
    with httpx.Client(base_url=root, timeout=60.0) as opened:
        yield opened


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def part(data: bytes) -> dict[str, Any]:
    url = f"data:application/pdf;base64,{in_base64(data)}"
    return {"type": "file", "file": {"filename": "a.pdf", "file_data": url}}


def about(*parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]


def ask(client: httpx.Client, messages: list[Any], **options: Any) -> httpx.Response:
    asked = {"max_tokens": TOKENS, "temperature": 0, "logprobs": True, "repetition_penalty": 1.0}
    return client.post("/v1/chat/completions", json={"messages": messages, **asked, **options})


def test_a_pdf_is_answered_as_its_pages_sent_as_images_and_texts(client: httpx.Client) -> None:
    line = "A page <|im_end|>"
    files = [in_base64(encoded(page, "PNG")) for page in drawn(file_of(line))]
    images = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}}
        for file in files
    ]
    by_pages = ask(client, about(*content_of(line, images))).json()
    by_file = ask(client, about(part(file_of(line)))).json()
    assert by_file["choices"] == by_pages["choices"]
    assert by_file["usage"]["prompt_tokens"] == by_pages["usage"]["prompt_tokens"]
    assert by_file["usage"]["prompt_tokens_details"]["image_tokens"] == 2 * 40 * 4


def test_ids_and_the_first_tokens_probability_are_transformers(client: httpx.Client) -> None:
    reference, line = oracle(checkpoint("tied")), "Some page"
    parts = [*content_of(line, [{"type": "image"}] * 2), {"type": "text", "text": "What?"}]
    wanted = reference.prepare([{"role": "user", "content": parts}], drawn(file_of(line)))
    messages = about(part(file_of(line)))
    ids = client.post("/tokenize", json={"messages": messages}).json()["tokens"]
    assert ids == wanted.input_ids.tolist()
    first = reference.greedy(wanted, 1)
    row = first.logits[0].astype(np.float64)
    expected = row[first.token_ids[0]] - row.max() - np.log(np.exp(row - row.max()).sum())
    (choice,) = ask(client, messages, max_tokens=1).json()["choices"]
    assert abs(choice["logprobs"]["content"][0]["logprob"] - expected) < TOLERANCE


def test_the_same_pdf_again_finds_its_prefix(client: httpx.Client) -> None:
    file = file_of("another one")
    first, again = (ask(client, about(part(file))).json()["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] < 0.5 * first["prompt_tokens"]
    assert again["prompt_tokens_details"]["cached_tokens"] > 0.9 * again["prompt_tokens"]


def test_file_input_of_open_responses(client: httpx.Client) -> None:
    file = {"type": "input_file", "filename": "a.pdf", "file_data": in_base64(file_of("three"))}
    question = {"type": "input_text", "text": "Summarize it."}
    message = {"type": "message", "role": "user", "content": [question, file]}
    body = {"model": "tiny-tied", "input": [message], "max_output_tokens": 16}
    answer = client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    spec.ResponseResource.model_validate(answer.json())
    count = client.post(
        "/v1/responses/input_tokens", json={"model": "tiny-tied", "input": [message]}
    )
    assert count.json()["input_tokens"] == answer.json()["usage"]["input_tokens"]


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_pdf_is_refused_by_its_place(client: httpx.Client, case: str) -> None:
    response = ask(client, about(part(REFUSED[case]())))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_pdf", PART)
    assert PART in error["message"] and not LEAK.search(error["message"])


def test_pages_beyond_the_limit_are_counted_and_none_is_left_out(client: httpx.Client) -> None:
    error = ask(client, about(part(pages(*["q Q"] * 21)))).json()["error"]
    assert (error["code"], error["param"]) == ("pdf_too_large", PART)
    assert "21 pages" in error["message"] and "at most 20" in error["message"]
