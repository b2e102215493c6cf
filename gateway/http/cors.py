"""Which web pages may ask this server from a browser."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from protos.wire.channels import REQUEST_ID_KEY


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
        expose_headers=(REQUEST_ID_KEY, "retry-after"),
    )
