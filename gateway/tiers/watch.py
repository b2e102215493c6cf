"""Looks at every address of a tier now and then, and follows who joins and who leaves."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from gateway.fleet.discovery import Discovery
from gateway.fleet.router import Endpoint, Router
from gateway.fleet.standing import Ejector
from protos.wire.channels import open_channel
from protos.wire.credentials import CredentialFiles

logger = logging.getLogger(__name__)

S = TypeVar("S")

# A larger tier is looked at less often, so that looks stay cheap.
ADDRESSES_PER_INTERVAL = 32

# A watch that comes so late was itself without a processor, and judges nobody by the clock.
_LAG_S = 0.5

# A channel of an address that left is closed when no call was there for so long: a caller may
# have chosen the address just before.
_UNUSED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How a tier is watched, seconds."""

    interval_s: float  # between looks at an address
    discover_interval_s: float  # between look-ups of names, and readings of files
    wait_s: float = 0.0  # how long a call waits for a tier of which nothing is there


class Channels(dict[Endpoint, grpc.aio.Channel]):
    """A channel for each address, opened when it is first asked for.

    Args:
        files: What is shown to the tier.
    """

    def __init__(self, files: CredentialFiles) -> None:
        super().__init__()
        self._files = files
        self._unused_since_s: dict[Endpoint, float] = {}
        self._stubs: dict[Endpoint, Any] = {}

    def stub(self, endpoint: Endpoint, make: Callable[[grpc.aio.Channel], S]) -> S:
        """What calls an address's service, made with its first call; of one kind in a tier."""
        if endpoint not in self._stubs:
            self._stubs[endpoint] = make(self[endpoint])
        stub: S = self._stubs[endpoint]
        return stub

    def __missing__(self, endpoint: Endpoint) -> grpc.aio.Channel:
        channel = open_channel(endpoint.address, self._files)
        self[endpoint] = channel
        return channel

    async def close_unused(self, endpoints: Collection[Endpoint], *, now_s: float) -> None:
        """Closes channels of others than these once their last call is over."""
        for endpoint in [each for each in self if each not in endpoints]:
            if endpoint.calls:
                self._unused_since_s.pop(endpoint, None)
            elif now_s - self._unused_since_s.setdefault(endpoint, now_s) >= _UNUSED_S:
                del self._unused_since_s[endpoint]
                self._stubs.pop(endpoint, None)
                await self.pop(endpoint).close()

    async def close(self) -> None:
        """Closes all."""
        self._stubs.clear()
        while self:
            _, channel = self.popitem()
            await channel.close()


class Watch:
    """The looks at one tier.

    Args:
        router: Its addresses.
        discovery: Where they come from.
        ejector: Judges who is slow.
        channels: Of the addresses.
        look_at: Takes one look and notes what it found.
        watching: How often.
    """

    def __init__(
        self,
        router: Router,
        discovery: Discovery,
        ejector: Ejector,
        channels: Channels,
        *,
        look_at: Callable[[Endpoint], Awaitable[None]],
        watching: Watching,
    ) -> None:
        self._router = router
        self._discovery = discovery
        self._ejector = ejector
        self._channels = channels
        self._look_at = look_at
        self._watching = watching
        self._looks: dict[Endpoint, asyncio.Task[None]] = {}

    def look(self, endpoint: Endpoint) -> "asyncio.Task[None]":
        """The look at an address that is under way, or a new one."""
        if endpoint not in self._looks:
            look = asyncio.create_task(self._look(endpoint))
            self._looks[endpoint] = look
            look.add_done_callback(lambda _: self._looks.pop(endpoint, None))
        return self._looks[endpoint]

    async def look_at_all(self) -> None:
        """Looks at every address; returns when all have answered or were given up."""
        await asyncio.gather(*(self.look(endpoint) for endpoint in self._router.endpoints))

    async def follow(self) -> None:
        """Takes over the addresses there are now; those that joined are looked at."""
        change = self._router.update(await self._discovery.look())
        for endpoint in change.joined:
            self.look(endpoint)
        if not self._discovery.is_static:
            for endpoint in change.joined:
                logger.info("%s tier: %s joined", self._router.tier, endpoint.address)
            for endpoint in change.left:
                logger.info("%s tier: %s left", self._router.tier, endpoint.address)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._looking())
            if not self._discovery.is_static:
                group.create_task(self._following())

    async def stop(self) -> None:
        """Ends the looks under way."""
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _look(self, endpoint: Endpoint) -> None:
        standing = endpoint.standing
        standing.look_begun_s = time.monotonic()
        try:
            await self._look_at(endpoint)
        finally:
            standing.look_begun_s = None

    async def _looking(self) -> None:
        """Judges twice as often as it looks, so that a missing answer is noticed soon."""
        for tick in itertools.count():
            size = len(self._router.endpoints) / ADDRESSES_PER_INTERVAL
            step_s = self._watching.interval_s * max(1.0, size) / 2
            due_s = time.monotonic() + step_s
            await asyncio.sleep(step_s)
            now_s = time.monotonic()
            if now_s - due_s < _LAG_S:
                self._judge(now_s)
            if tick % 2 == 0:
                for endpoint in self._router.endpoints:
                    self.look(endpoint)
                await self._channels.close_unused(self._router.endpoints, now_s=now_s)

    def _judge(self, now_s: float) -> None:
        serving = {endpoint.standing: endpoint.address for endpoint in self._router.serving()}
        for standing in self._ejector.judge(list(serving), now_s=now_s):
            logger.warning(
                "%s tier: %s is slow beyond its peers, set aside for %.1f s",
                self._router.tier,
                serving[standing],
                standing.ejected_until_s - now_s,
            )

    async def _following(self) -> None:
        while True:
            await asyncio.sleep(self._watching.discover_interval_s)
            await self.follow()
