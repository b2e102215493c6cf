"""The page at `/`: its headers, that it is whole, and that it asks nobody else."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.http.page import FOLDER
from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Names of XML, which nobody ever asks.
NAMESPACES = ("http://www.w3.org/2000/svg",)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def locked(bundle: Bundle) -> AsyncIterator[Stage]:
    """A gateway that wants a key."""
    async with staged(bundle, api_key="secret") as stage:
        yield stage


def address(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_as_what_it_is_without_a_key(locked: Stage, name: str) -> None:
    got = await locked.http.get(address(name))
    assert (got.status_code, got.text) == (200, FILES[name])
    assert got.headers["content-type"] == TYPES[name.rpartition(".")[2]]
    head = await locked.http.head(address(name))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/pages", "/pagefile"])
async def test_what_is_not_the_pages_still_wants_the_key(locked: Stage, path: str) -> None:
    assert (await locked.http.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/none.mjs", "/page/../app.py"])
@pytest.mark.parametrize("suffix", ["", "/%2e%2e/%2e%2e/app.py"])
async def test_there_is_nothing_but_the_files(stage: Stage, path: str, suffix: str) -> None:
    assert (await stage.http.get(path + suffix)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/app.mjs"])
async def test_nothing_foreign_may_run_or_be_asked_for(stage: Stage, path: str) -> None:
    headers = (await stage.http.get(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/page/style.css"])
async def test_a_file_that_did_not_change_is_not_sent_again(stage: Stage, path: str) -> None:
    first = await stage.http.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await stage.http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert "content-security-policy" in again.headers
    for known in ('"other"', tag.strip('"'), ""):
        again = await stage.http.get(path, headers={"If-None-Match": known})
        assert again.status_code == 200


async def test_the_page_takes_no_other_method(stage: Stage) -> None:
    assert (await stage.http.post("/")).status_code == 405


async def test_two_slashes_are_the_page_and_no_redirect(stage: Stage) -> None:
    answer = await stage.http.get(f"http://127.0.0.1:{stage.gateway.http_port}//")
    assert (answer.status_code, "location" in answer.headers) == (200, False)


@pytest.mark.parametrize("name", FILES)
async def test_no_file_names_another_host(name: str) -> None:
    text = FILES[name]
    for namespace in NAMESPACES:
        text = text.replace(namespace, "")
    assert re.findall(r"[\w+.-]+://[^\s\"'`]*|[\"'(]//\w[^\s\"']*", text) == []


@pytest.mark.parametrize("name", FILES)
async def test_no_file_makes_elements_or_code_of_text(name: str) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert re.findall(ways, FILES[name]) == []


async def test_the_policy_lets_everything_in_the_index_be() -> None:
    index = FILES["index.html"]
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|<form", index) == []
    assert re.findall(r"setAttribute\(\"style\"", "".join(FILES.values())) == []


async def test_every_file_that_is_asked_for_is_there_and_each_is_asked_for() -> None:
    asked = set(re.findall(r"(?:href|src)=\"page/([^\"]+)\"", FILES["index.html"]))
    for name, text in FILES.items():
        if name.endswith(".mjs"):
            asked |= set(re.findall(r"from \"\./([^\"]+)\"", text))
    assert asked | {"index.html"} == set(FILES)


async def test_every_element_a_module_looks_for_is_in_the_index() -> None:
    there = re.findall(r"\sid=\"([^\"]+)\"", FILES["index.html"])
    assert len(there) == len(set(there))
    sources = "".join(text for name, text in FILES.items() if name.endswith(".mjs"))
    wanted = set(re.findall(r"(?:byId|getElementById)\(\"([\w-]+)\"\)", sources))
    assert wanted and wanted <= set(there)


async def test_every_control_has_a_name_for_screen_readers() -> None:
    index = FILES["index.html"]
    for tag, text in re.findall(r"<button([^>]*)>(.*?)</button>", index):
        assert "aria-label=" in tag or re.search(r"\w", text), tag
    labelled = re.sub(r"<label.*?</label>", "", index)
    for tag in re.findall(r"<(?:input|textarea|select)[^>]*>", labelled):
        assert "aria-label=" in tag or " hidden" in tag, tag
