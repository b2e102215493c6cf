"""One tier as the gateway sees it: its addresses, the handshake, and who is ready."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc

from gateway.fleet.discovery import Discovery
from gateway.fleet.router import Endpoint, Router, State
from gateway.fleet.standing import Ejector, Fault
from gateway.fleet.words import FirstWords
from gateway.media.images import TierLimits
from gateway.tiers.watch import Channels, Watch, Watching
from protos.bundle.manifest import BundleError
from protos.wire.channels import is_serving
from protos.wire.credentials import CredentialFiles, Credentials
from protos.wire.errors import Reason, from_rpc_error
from protos.wire.refusals import Refusals

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_TIMEOUT_S = 2.0
MISSES_ALLOWED = 3

# How long a call waits for looks at addresses in doubt where no other is ready: with the rest of
# an answer less than a second.
READY_WITHIN_S = 0.7
_MOST_LOOKS = 8  # at once for one call
WAIT_STEP_S = 0.1

# What a server of ours answers that is about to be there, or to go: no fault.
_ORDERLY = (Reason.LOADING, Reason.DRAINING)
_BROKEN = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
)


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
        router: The tier's addresses, none yet.
        discovery: Where they come from.
        report: Asks one address what it is; raises grpc.RpcError.
        bundle_digest: Of the bundle the tier must serve.
        watching: How often it is looked at.
        files: What is shown to the tier; None: nothing.
    """

    def __init__(
        self,
        router: Router,
        discovery: Discovery,
        *,
        report: Callable[[grpc.aio.Channel], Awaitable[Report]],
        bundle_digest: str,
        watching: Watching,
        files: CredentialFiles | None = None,
    ) -> None:
        self._files = files or CredentialFiles(Credentials())
        self._refusals = Refusals(self._files)
        self.router = router
        self.bundle_digest = bundle_digest
        self.channels = Channels(self._files)
        self.ejector = Ejector()
        self.retries: Counter[Fault] = Counter()  # calls made again elsewhere, since the start
        self._report = report
        self._wait_s = watching.wait_s
        self._is_static = discovery.is_static
        self._words = FirstWords()
        self._watch = Watch(
            router,
            discovery,
            self.ejector,
            self.channels,
            look_at=self._look_at,
            watching=watching,
        )
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TierClient":
        """Takes the first look.

        Raises:
            BundleError: every address of a fixed list serves another bundle. Later, when tiers are
                replaced one by one, and where others may join, that is each request's error and
                not the gateway's end.
        """
        await self._watch.follow()
        await self._watch.look_at_all()
        if self._is_static and self.router.is_mismatched():
            await self._close_channels()
            raise BundleError(
                f"the {self.router.tier} tier at"
                f" {', '.join(endpoint.address for endpoint in self.router.endpoints)} serves"
                f" another bundle than this gateway, whose digest is {self.bundle_digest}"
            )
        self._watching = asyncio.create_task(self._watch.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._watch.stop()
        await self._close_channels()

    async def _close_channels(self) -> None:
        await self._refusals.close()
        await self.channels.close()

    async def ready(
        self, *, avoid: Collection[Endpoint] = (), affinity: bytes | None = None
    ) -> Endpoint:
        """The best address that serves our bundle; where none does, those in doubt are looked at.

        Args:
            avoid: Come last.
            affinity: Calls that share it prefer the same address; see `Router.ranked`.

        Raises:
            ModelMismatch: every address serves another bundle.
            Unavailable: none is ready, within a second or the time that calls may wait for one.
        """
        give_up_s = time.monotonic() + self._wait_s
        while True:
            ranked = self.router.ranked(avoid=avoid, affinity=affinity)
            if not (ranked and _is_sure(ranked[0], avoid)):
                await self._look_at_doubtful(ranked)
                ranked = self.router.ranked(avoid=avoid, affinity=affinity)
            serving = [endpoint for endpoint in ranked if endpoint.state is State.SERVING]
            if serving:
                return serving[0]
            if time.monotonic() >= give_up_s:
                raise self.router.failure()
            await asyncio.sleep(WAIT_STEP_S)

    async def first_word(
        self,
        endpoint: Endpoint,
        word: Awaitable[T],
        *,
        grace_s: float = 0.0,
        begun_s: float | None = None,
    ) -> T:
        """Waits for the first message of a call that a tier answers at once, however busy it is.

        How long follows from what such messages took lately. An address that stays silent so long
        counts as one that is not there; nothing has happened that keeps the call from being made
        at another.

        Args:
            endpoint: Where the call was made.
            word: Its first message.
            grace_s: What this call may take longer than others.
            begun_s: When it was made, `time.monotonic()` seconds; now where None.

        Raises:
            grpc.RpcError: UNAVAILABLE, the address stayed silent; else as `word`.
        """
        now_s = time.monotonic()
        begun_s = now_s if begun_s is None else begun_s
        try:
            async with asyncio.timeout(begun_s - now_s + self._words.within_s() + grace_s):
                answer = await word
        except TimeoutError as error:
            self._words.note(time.monotonic() - begun_s)
            self.note_fault(endpoint, Fault.SILENT)
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none) from error
        spent_s = max(0.0, time.monotonic() - begun_s - grace_s)
        self._words.note(spent_s)
        endpoint.standing.words_s.append(spent_s)
        self.note_success(endpoint)
        return answer

    def note_success(self, endpoint: Endpoint) -> None:
        """A call to this address was answered."""
        self.ejector.succeeded(endpoint.standing, now_s=time.monotonic())

    def note_failure(self, endpoint: Endpoint, error: grpc.RpcError) -> None:
        """An address that failed is in doubt until the next look; failing again ejects it."""
        code = code_of(error)
        if code is grpc.StatusCode.UNAVAILABLE:
            self._note(endpoint, State.UNREACHABLE)
            if from_rpc_error(error, unavailable=self.router.reason).reason not in _ORDERLY:
                self.note_fault(endpoint, Fault.UNAVAILABLE)
        elif code in _BROKEN:
            self.note_fault(endpoint, Fault.BROKEN)

    def note_fault(self, endpoint: Endpoint, fault: Fault) -> None:
        """A call to this address went wrong by the address's own doing."""
        standing, now_s = endpoint.standing, time.monotonic()
        peers = [each.standing for each in self.router.serving() if each is not endpoint]
        if self.ejector.faulted(standing, fault, peers=peers, now_s=now_s):
            logger.warning(
                "%s tier: %s is set aside for %.1f s (%s)",
                self.router.tier,
                endpoint.address,
                standing.ejected_until_s - now_s,
                fault,
            )

    async def _look_at_doubtful(self, ranked: Collection[Endpoint]) -> None:
        """Looks at addresses in doubt, all at once, until one serves or the time is over."""
        doubtful = [endpoint for endpoint in ranked if endpoint.state is not State.SERVING]
        looks = {self._watch.look(endpoint): endpoint for endpoint in doubtful[:_MOST_LOOKS]}
        by_s = time.monotonic() + READY_WITHIN_S
        pending = set(looks)
        while pending and (left_s := by_s - time.monotonic()) > 0:
            done, pending = await asyncio.wait(
                pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if any(looks[look].state is State.SERVING for look in done):
                return

    async def _look_at(self, endpoint: Endpoint) -> None:
        """Asks an address what it serves and whether it is ready, and notes the answer."""
        channel = self.channels[endpoint]
        begun_s = time.monotonic()
        try:
            report = await self._report(channel)
        except grpc.RpcError as error:
            self._refusals.noticed(f"{self.router.tier} tier", endpoint.address, error)
            endpoint.misses += 1
            # A busy machine may answer late; one that is gone refuses at once.
            late = code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED
            if late:
                endpoint.standing.looks_s.append(time.monotonic() - begun_s)
            if not late or endpoint.misses >= MISSES_ALLOWED:
                self._note(endpoint, State.UNREACHABLE)
                if late:  # one that is draining refuses looks, and ends its calls
                    endpoint.gone.set()
            return
        endpoint.standing.looks_s.append(time.monotonic() - begun_s)
        self._take(report, endpoint)
        if report.bundle_digest != self.bundle_digest:
            self._note(endpoint, State.MISMATCHED)
        elif await is_serving(channel, timeout_s=LOOK_TIMEOUT_S):
            self._note(endpoint, State.SERVING)
            self.ejector.looked(endpoint.standing, now_s=time.monotonic())
        else:
            self._note(endpoint, State.NOT_SERVING)

    def _take(self, report: Report, endpoint: Endpoint) -> None:
        endpoint.misses = 0
        endpoint.gone.clear()
        endpoint.max_context = report.max_context
        endpoint.running, endpoint.waiting = report.running, report.waiting
        endpoint.kv_usage = report.kv_usage
        if report.image_limits not in (None, endpoint.image_limits):
            endpoint.image_limits = report.image_limits
            logger.info("images at %s: at most %s", endpoint.address, report.image_limits)

    def _note(self, endpoint: Endpoint, state: State) -> None:
        if endpoint.state is not state:
            level = logging.INFO if state is State.SERVING else logging.WARNING
            logger.log(level, "%s tier at %s is %s", self.router.tier, endpoint.address, state)
            endpoint.state = state
            endpoint.has_served |= state is State.SERVING


def _is_sure(endpoint: Endpoint, avoid: Collection[Endpoint]) -> bool:
    return endpoint.state is State.SERVING and endpoint not in avoid


def code_of(error: grpc.RpcError) -> grpc.StatusCode | None:
    """The status code of a failed call."""
    code: grpc.StatusCode | None = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    return code
