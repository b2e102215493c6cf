"""`data:` URLs in every dress in which clients send them."""

import base64
import time
import tracemalloc
from urllib.parse import quote

import pytest

from gateway.media.data_urls import data_url_bytes
from protos.wire.errors import InvalidRequest, Reason

DATA = bytes(range(256)) + b"\xfb\xff\xfe?"
TEXT = base64.b64encode(DATA).decode()


def read(url: str, most: int = 1000) -> bytes:
    return data_url_bytes(url, field="image", most=most)


def test_the_sample_holds_every_sign_of_the_alphabet_and_padding() -> None:
    assert {"+", "/", "="} < set(TEXT)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
        " " + TEXT,
        TEXT + "\n",
        "\t".join(TEXT),
        TEXT.rstrip("="),
        TEXT.replace("=", "%3D"),
        TEXT.replace("=", "%3d").replace("+", "%2b").replace("/", "%2f"),
        quote(TEXT, safe=""),
        quote(base64.encodebytes(DATA).decode()),
        "%20" + TEXT + "%0D%0A",
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
    ],
    ids=lambda text: repr(text[-12:]),
)
def test_the_text_may_be_dressed_as_for_a_browser(text: str) -> None:
    assert read("data:image/png;base64," + text) == DATA


@pytest.mark.parametrize(
    "head",
    [
        "data:;base64,",
        "data:image/png;charset=utf-8;base64,",
        "data:image/svg+xml;name=a b.png;x=y;BASE64,",
        "data:image/png; base64,",
        "data:image/png;base64 ,",
        "DATA:IMAGE/PNG;base64,",
        "data:nonsense;base64,",
    ],
)
def test_parameters_may_stand_before_base64(head: str) -> None:
    assert read(head + TEXT) == DATA


@pytest.mark.parametrize("count", range(9))
def test_the_limit_counts_bytes_and_not_the_texts_dress(count: int) -> None:
    data = DATA[:count]
    dressed = "data:;base64," + "\r\n".join(base64.b64encode(data).decode()) + "  "
    assert read(dressed, most=count) == data
    if count:
        with pytest.raises(InvalidRequest) as caught:
            read(dressed, most=count - 1)
        assert caught.value.reason is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("unit", ["%41", "%0A", "%", "A ", "=", "-"])
def test_no_dress_costs_more_than_a_few_copies(unit: str) -> None:
    url = "data:;base64," + unit * (8_000_000 // len(unit))
    tracemalloc.start()
    started = time.perf_counter()
    try:
        read(url, most=100_000_000)
    except InvalidRequest:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * len(url)
    assert time.perf_counter() - started < 5
