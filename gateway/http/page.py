"""The web page at `/`: the static files of `gateway/page/`, and what browsers are told of them."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parents[1] / "page"
INDEX = "index.html"
PREFIX = "/page/"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# An answer of a model is text to the page. Should it ever become more, nothing of it may run or be
# asked for elsewhere.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src blob:",  # previews of videos that were chosen
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, and mostly answered with 304: no page of one version ever runs
    # with a module of another.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    body: bytes
    media_type: str
    tag: str  # its ETag, quoted

    def answer(self, request: Request) -> Response:
        headers = {**_HEADERS, "ETag": self.tag}
        if _holds(request.headers.get("if-none-match", ""), self.tag):
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def page_routes() -> list[Route]:
    """Routes of the page and of each of its files, which are read now.

    They are answered without a key: they are the same text for everybody.
    """
    files = {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in _TYPES}
    index = _route("/", files.pop(INDEX))
    return [index, *(_route(PREFIX + name, file) for name, file in sorted(files.items()))]


def is_of_page(path: str) -> bool:
    """Whether a path is the page's, there or not."""
    return path == "/" or path.startswith(PREFIX)


def _read(path: Path) -> _File:
    body = path.read_bytes()
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    return _File(body=body, media_type=_TYPES[path.suffix], tag=tag)


def _route(path: str, file: _File) -> Route:
    async def answer(request: Request) -> Response:
        return file.answer(request)

    return Route(path, answer)


def _holds(known: str, tag: str) -> bool:
    """Whether an `If-None-Match` names this tag; compared weakly (RFC 9110, 13.1.2)."""
    tags = [one.strip().removeprefix("W/") for one in known.split(",")]
    return tag in tags or tags == ["*"]
