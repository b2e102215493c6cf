"""The routes of the admin port: drain, keys, tiers, the log's level."""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.access.accounts import Account
from gateway.access.admission import Admission
from gateway.access.keys import KeyRing
from gateway.fleet.router import Router
from gateway.http.bodies.body import parse_json, read_body
from gateway.http.routes import ERROR_HANDLERS
from protos.process.settings import LOG_LEVELS
from protos.wire.errors import InvalidRequest

logger = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_BODY_BYTES = 4096
PATIENCE_S = 10.0


class Admin:
    """Serves the routes.

    Args:
        admission: Is told to take no more requests.
        keys: Those that are accepted.
        routers: The tiers' addresses.
    """

    def __init__(self, admission: Admission, keys: KeyRing, routers: Iterable[Router]) -> None:
        self._admission = admission
        self._keys = keys
        self._routers = tuple(routers)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/status", self._status, methods=["GET"]),
                Route("/drain", self._drain, methods=["POST"]),
                Route("/undrain", self._undrain, methods=["POST"]),
                Route("/keys", self._list_keys, methods=["GET"]),
                Route("/tiers", self._list_tiers, methods=["GET"]),
                Route("/log-level", self._set_level, methods=["POST"]),
            ],
            exception_handlers=ERROR_HANDLERS,
        )

    async def _status(self, _: Request) -> Response:
        return JSONResponse(self._state())

    async def _drain(self, _: Request) -> Response:
        logger.warning("draining, as the admin port was told")
        self._admission.draining = True
        return JSONResponse(self._state())

    async def _undrain(self, _: Request) -> Response:
        logger.warning("taking requests again, as the admin port was told")
        self._admission.draining = False
        return JSONResponse(self._state())

    async def _list_keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [_key(account) for account in self._keys.accounts]})

    async def _list_tiers(self, _: Request) -> Response:
        return JSONResponse({router.tier: _addresses(router) for router in self._routers})

    async def _set_level(self, request: Request) -> Response:
        by_s = time.monotonic() + PATIENCE_S
        body = await read_body(
            request.stream(), limit=MAX_BODY_BYTES, patience_s=PATIENCE_S, by_s=by_s
        )
        asked = parse_json(body)
        level = asked.get("level") if isinstance(asked, dict) else None
        if level not in LOG_LEVELS:
            raise InvalidRequest(f"level must be one of {', '.join(LOG_LEVELS)}", param="level")
        logging.getLogger().setLevel(level)
        logger.warning("the log's level is %s, as the admin port was told", level)
        return JSONResponse(self._state())

    def _state(self) -> Json:
        """Whether it drains, what is at work, and the log's level."""
        return {
            "draining": self._admission.draining,
            "requests": self._admission.in_flight,
            "request_bytes": self._admission.held_bytes,
            "log_level": logging.getLevelName(logging.getLogger().level),
        }


def _key(account: Account) -> Json:
    limits = {rated.value: bucket.per_minute for rated, bucket in account.buckets.items()}
    remaining = {rated.value: bucket.remaining() for rated, bucket in account.buckets.items()}
    return {
        "name": account.name,
        "usage": asdict(account.usage),
        "max_in_flight": account.limits.max_in_flight,
        "priority": account.limits.priority,
        "per_minute": limits,
        "remaining": remaining,
    }


def _addresses(router: Router) -> list[Json]:
    return [
        {
            "address": endpoint.address,
            "state": endpoint.state.value,
            "calls": endpoint.calls,
            "running": endpoint.running,
            "waiting": endpoint.waiting,
            "kv_usage": endpoint.kv_usage,
        }
        for endpoint in router.endpoints
    ]
