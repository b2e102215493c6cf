"""Paths, methods and headers as proxies, browsers and probes use them."""

import asyncio
import gzip
import json
import zlib

import pytest

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/chat/completions"
PAGES = {"cors_origins": "https://chat.example, http://localhost:3000"}


async def raw(stage: Stage, request: str) -> bytes:
    """Sends a request as it is and returns the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.http_port)
    writer.write(request.encode())
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("slashes", ["/", "//"])
async def test_a_slash_at_the_end_means_nothing(stage: Stage, slashes: str) -> None:
    answer = await stage.http.post(URL + slashes, json={"messages": user()})
    assert answer.status_code == 200
    listed = await stage.http.get("/v1/models" + slashes)
    assert listed.json()["object"] == "list"
    assert (await stage.http.get("/v1/models/test" + slashes)).json()["id"] == "test"
    assert (await stage.http.get("/health" + slashes)).status_code == 200


async def test_nothing_is_redirected(stage: Stage) -> None:
    for path in (
        "/v1",
        "/v1/",
        "/v1/chat",
        "/health//x",
        "/v1//models",
        "//evil.example",
    ):
        response = await stage.http.get(f"http://127.0.0.1:{stage.gateway.http_port}{path}")
        assert (response.status_code, "location" in response.headers) == (404, False)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/test", "/health"])
async def test_head_is_answered_wherever_get_is(stage: Stage, path: str) -> None:
    got, head = await stage.http.get(path), await stage.http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", URL, {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("PUT", "/health", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    stage: Stage, method: str, path: str, allowed: set[str]
) -> None:
    response = await stage.http.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_whole_url_as_target_is_its_path(stage: Stage) -> None:
    tail = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = await raw(stage, f"GET http://localhost:8000/v1/models?x=1 {tail}")
    assert answer.startswith(b"HTTP/1.1 200")
    for host in ("evil.example", "localhost@evil.example", "user:word@localhost"):
        answer = await raw(stage, f"GET http://{host}/v1/models {tail}")
        assert answer.startswith(b"HTTP/1.1 400")


async def test_the_key_is_wanted_however_the_path_is_written(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret") as stage:
        for path in ("/v1/models/", "//health", "/health/x"):
            port = stage.gateway.http_port
            response = await stage.http.get(f"http://127.0.0.1:{port}{path}")
            assert response.status_code == 401
        assert (await stage.http.get("/health/")).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_decoded(stage: Stage, encoding: str) -> None:
    body = json.dumps({"messages": user()}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    response = await stage.http.post(URL, content=packed, headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_other_encodings_get_415_and_are_told_which_are_known(
    stage: Stage, encoding: str
) -> None:
    response = await stage.http.post(URL, content=b"x", headers={"content-encoding": encoding})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"
    assert response.json()["error"]["code"] == "unsupported_encoding"
    assert repr(encoding) in response.json()["error"]["message"]


async def test_a_bomb_gets_413(bundle: Bundle) -> None:
    async with staged(bundle, max_body_bytes=100_000) as stage:
        bomb = gzip.compress(b" " * 50_000_000)
        assert len(bomb) < 100_000
        headers = {"content-encoding": "gzip"}
        response = await stage.http.post(URL, content=bomb, headers=headers)
        assert response.status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"},
        {"forwarded": "for=192.0.2.1;host=evil.example;proto=https", "x-forwarded-for": "x"},
        {"x-original-url": "/health", "x-rewrite-url": "/health", "x-forwarded-prefix": "/x"},
        {"x-http-method-override": "DELETE", "x-forwarded-port": "99999"},
    ],
)
async def test_headers_of_proxies_change_nothing(stage: Stage, headers: dict[str, str]) -> None:
    plain, forwarded = (
        await stage.http.get("/v1/models"),
        await stage.http.get("/v1/models", headers=headers),
    )
    assert (forwarded.status_code, forwarded.content) == (200, plain.content)
    refused = await stage.http.get(
        "/v1/models", headers={"host": "evil.example", "x-forwarded-host": "localhost"}
    )
    assert refused.status_code == 400


async def test_a_refused_host_is_told_the_setting_that_allows_it(bundle: Bundle) -> None:
    headers = {"host": "host.docker.internal:8000"}
    async with staged(bundle) as stage:
        error = (await stage.http.get("/v1/models", headers=headers)).json()["error"]
        assert "'host.docker.internal'" in error["message"]
        assert "--allowed-hosts" in error["message"]
    async with staged(bundle, allowed_hosts="host.docker.internal,127.0.0.1") as stage:
        assert (await stage.http.get("/v1/models", headers=headers)).status_code == 200


async def test_pages_of_listed_origins_may_ask_and_others_may_not(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret", **PAGES) as stage:
        for origin, status in (("https://chat.example", 200), ("https://evil.example", 400)):
            preflight = await stage.http.options(
                URL,
                headers={
                    "origin": origin,
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "authorization,content-type",
                },
            )
            assert preflight.status_code == status
            seen = preflight.headers.get("access-control-allow-origin")
            assert seen == (origin if status == 200 else None)
            refused = await stage.http.get("/v1/models", headers={"origin": origin})
            assert refused.status_code == 401
            assert refused.headers.get("access-control-allow-origin") == seen
            key = {"origin": origin, "authorization": "Bearer s3cret"}
            asked = {"messages": user(), "stream": True}
            answer = await stage.http.post(URL, json=asked, headers=key)
            assert answer.headers.get("access-control-allow-origin") == seen


async def test_no_page_may_ask_where_none_is_listed(stage: Stage) -> None:
    headers = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    assert (await stage.http.options(URL, headers=headers)).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
async def test_there_is_no_page_of_documentation(stage: Stage, path: str) -> None:
    response = await stage.http.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
