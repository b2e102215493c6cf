"""Which web pages may ask this server from a browser."""

from collections.abc import Mapping, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.http.rates import DESCRIBED
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import InvalidRequest

# Of bodies that browsers send anywhere without asking first; a request may name no type as well.
_SIMPLE = ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
_OWN_SITE = ("same-origin", "none")  # none: the user's own doing, no page's


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, answering browsers' questions for pages of these origins.

    It stands before the guard, because a browser asks without a key, and wants the headers on
    refusals as well. Cookies play no part: a page sends the key itself.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=(REQUEST_ID_KEY, "retry-after", *DESCRIBED),
    )


def check_page(method: str, headers: Mapping[str, str], origins: Sequence[str]) -> None:
    """Refuses what a browser sends for a foreign web page without asking whether it may.

    The page could not read the answer, but the server would work for it. What a page may only send
    after the browser has asked needs no look: it gets no leave.

    Args:
        method: HTTP's.
        headers: The request's.
        origins: Of pages that may ask this server.

    Raises:
        InvalidRequest: it is a foreign page's.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method != "POST" or kind not in _SIMPLE:
        return
    if _is_foreign(headers) and not {"*", headers.get("origin")} & set(origins):
        raise InvalidRequest(
            "the request comes from a web page of another origin, which cors_origins has to list;"
            " its Content-Type must be application/json"
        )


def _is_foreign(headers: Mapping[str, str]) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in _OWN_SITE
    if origin is None:
        return False
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()
