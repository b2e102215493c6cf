"""One tier as the gateway sees it: its addresses, the handshake, and who is ready."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import grpc

from gateway.media.images import TierLimits
from gateway.tiers.router import Endpoint, Router, State
from protos.bundle.manifest import BundleError
from protos.wire.channels import is_serving, open_channel
from protos.wire.credentials import CredentialFiles, Credentials
from protos.wire.refusals import Refusals

logger = logging.getLogger(__name__)

LOOK_TIMEOUT_S = 2.0
MISSES_ALLOWED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an address says of itself."""

    bundle_digest: str
    max_context: int = 0  # tokens of one sequence; 0 where there are none
    running: int = 0  # sequences that hold a slot
    waiting: int = 0  # sequences that wait for one
    kv_usage: float = 0.0  # share of the KV cache in use
    image_limits: TierLimits | None = None  # of a tier that takes images


class TierClient:
    """What both clients share: channels, the handshake, and a look at every address now and then.

    Use as an async context manager; the first look is done when it is entered.

    Args:
        router: The tier's addresses.
        report: Asks one address what it is; raises grpc.RpcError.
        bundle_digest: Of the bundle the tier must serve.
        watch_interval_s: Seconds between looks.
        files: What is shown to the tier; None: nothing.
    """

    def __init__(
        self,
        router: Router,
        *,
        report: Callable[[grpc.aio.Channel], Awaitable[Report]],
        bundle_digest: str,
        watch_interval_s: float,
        files: CredentialFiles | None = None,
    ) -> None:
        self._files = files or CredentialFiles(Credentials())
        self._refusals = Refusals(self._files)
        self.router = router
        self.bundle_digest = bundle_digest
        self._report = report
        self._watch_interval_s = watch_interval_s
        self.channels: dict[Endpoint, grpc.aio.Channel] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TierClient":
        """Takes the first look.

        Raises:
            BundleError: every address serves another bundle. Later, when tiers are replaced one
                by one, that is each request's error and not the gateway's end.
        """
        for endpoint in self.router.endpoints:
            self.channels[endpoint] = open_channel(endpoint.address, self._files)
        await self._look_at_all()
        if all(endpoint.state is State.MISMATCHED for endpoint in self.router.endpoints):
            await self._close_channels()
            raise BundleError(
                f"the {self.router.tier} tier at"
                f" {', '.join(endpoint.address for endpoint in self.router.endpoints)} serves"
                f" another bundle than this gateway, whose digest is {self.bundle_digest}"
            )
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._close_channels()

    async def _close_channels(self) -> None:
        await self._refusals.close()
        for channel in self.channels.values():
            await channel.close()

    async def ready(
        self, *, avoid: Collection[Endpoint] = (), affinity: bytes | None = None
    ) -> Endpoint:
        """The best address that serves our bundle; those in doubt are looked at first.

        Args:
            avoid: Come last.
            affinity: Calls that share it prefer the same address; see `Router.ranked`.

        Raises:
            ModelMismatch: every address serves another bundle.
            Unavailable: none is ready.
        """
        for endpoint in self.router.ranked(avoid=avoid, affinity=affinity):
            if endpoint.state is not State.SERVING:
                await self.look_at(endpoint)
            if endpoint.state is State.SERVING:
                return endpoint
        raise self.router.failure()

    async def look_at(self, endpoint: Endpoint) -> None:
        """Asks an address what it serves and whether it is ready, and notes the answer."""
        channel = self.channels[endpoint]
        try:
            report = await self._report(channel)
        except grpc.RpcError as error:
            self._refusals.noticed(f"{self.router.tier} tier", endpoint.address, error)
            endpoint.misses += 1
            # A busy machine may answer late; one that is gone refuses at once.
            late = code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED
            if not late or endpoint.misses >= MISSES_ALLOWED:
                self._note(endpoint, State.UNREACHABLE)
            return
        endpoint.misses = 0
        endpoint.max_context = report.max_context
        endpoint.running, endpoint.waiting = report.running, report.waiting
        endpoint.kv_usage = report.kv_usage
        if report.image_limits not in (None, endpoint.image_limits):
            endpoint.image_limits = report.image_limits
            logger.info("images at %s: at most %s", endpoint.address, report.image_limits)
        if report.bundle_digest != self.bundle_digest:
            self._note(endpoint, State.MISMATCHED)
        elif await is_serving(channel, timeout_s=LOOK_TIMEOUT_S):
            self._note(endpoint, State.SERVING)
        else:
            self._note(endpoint, State.NOT_SERVING)

    async def _look_at_all(self) -> None:
        await asyncio.gather(*(self.look_at(endpoint) for endpoint in self.router.endpoints))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_interval_s)
            await self._look_at_all()

    def _note(self, endpoint: Endpoint, state: State) -> None:
        if endpoint.state is not state:
            level = logging.INFO if state is State.SERVING else logging.WARNING
            logger.log(level, "%s tier at %s is %s", self.router.tier, endpoint.address, state)
            endpoint.state = state
            endpoint.has_served |= state is State.SERVING

    def note_failure(self, endpoint: Endpoint, error: grpc.RpcError) -> None:
        """An address that failed is in doubt until the next look."""
        if code_of(error) is grpc.StatusCode.UNAVAILABLE:
            self._note(endpoint, State.UNREACHABLE)


def code_of(error: grpc.RpcError) -> grpc.StatusCode | None:
    """The status code of a failed call."""
    code: grpc.StatusCode | None = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    return code
