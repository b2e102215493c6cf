"""Which address of a tier gets the next call. Pure choice; the tier's client does the calling."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from blake3 import blake3

from gateway.fleet.standing import Standing, Trust
from gateway.media.images import TierLimits
from protos.wire.errors import ModelMismatch, Reason, ServiceError, error_for

RETRY_AFTER_S = 1.0

# Calls that an address with the right prefix may have above the least loaded one: a prefix that
# is not computed again is worth some company in the batch.
AFFINITY_SLACK = 2


class State(StrEnum):
    """What the last look at an address found."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    UNREACHABLE = "unreachable"
    MISMATCHED = "mismatched"  # serves another bundle; an operator must mend it


@dataclass(slots=True, eq=False)
class Endpoint:
    """One address of a tier and what is known about it."""

    address: str
    state: State = State.UNKNOWN
    has_served: bool = False  # at some time since this gateway started
    max_context: int = 0  # tokens; 0 from the vision tier
    misses: int = 0  # looks in a row that were not answered in time
    image_limits: TierLimits | None = None  # as last reported; None until then
    calls: int = 0  # this gateway's calls at work there
    patches: int = 0  # of the images that these encode
    running: int = 0  # sequences that hold a slot there, at the last look
    waiting: int = 0  # sequences that wait for one
    kv_usage: float = 0.0  # share of its KV cache in use
    standing: Standing = field(default_factory=Standing)
    # While looks at it are not answered any more: calls there need not be waited for.
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def condition(self) -> str:
        """Its state in one word; of one that serves, whether it is trusted with calls."""
        trust = self.standing.trust
        if self.state is State.SERVING and trust is not Trust.TRUSTED:
            return trust.value
        return self.state.value

    @property
    def load(self) -> int:
        """Work there: what it reported, or what this gateway started since, if more."""
        return max(self.calls, self.running + self.waiting)


def _takes_calls(endpoint: Endpoint) -> bool:
    return endpoint.state is State.SERVING and endpoint.standing.takes(endpoint.calls)


def _score(affinity: bytes, endpoint: Endpoint) -> bytes:
    return blake3(endpoint.address.encode() + b"\0" + affinity).digest()


class Change(NamedTuple):
    """How the addresses of a tier changed."""

    joined: tuple[Endpoint, ...]
    left: tuple[Endpoint, ...]


class Router:
    """The addresses of one tier, best first for each call."""

    def __init__(self, tier: str, addresses: Sequence[str] = (), *, unavailable: Reason) -> None:
        self.tier = tier
        self.endpoints = tuple(Endpoint(address) for address in addresses)
        self.reason = unavailable  # of a call that finds no address
        self._turn = 0
        self._has_served = False

    def update(self, addresses: Collection[str]) -> Change:
        """Takes over which addresses there are now.

        What is known of those that stay is kept. One that left is no longer among `endpoints`, so
        it gets no new calls; those at work there are its callers' own.
        """
        known = {endpoint.address: endpoint for endpoint in self.endpoints}
        joined = {address: Endpoint(address) for address in addresses if address not in known}
        left = tuple(known[address] for address in known if address not in addresses)
        self._has_served = self.has_served()
        merged = known | joined
        self.endpoints = tuple(merged[address] for address in addresses)
        return Change(tuple(joined.values()), left)

    def ranked(
        self, *, avoid: Collection[Endpoint] = (), affinity: bytes | None = None
    ) -> list[Endpoint]:
        """Every address worth trying: serving ones by load, then ejected ones, then those in doubt.

        Equal loads take turns. With `affinity`, loads within the slack count as equal, and calls
        of the same affinity prefer the same address among them (rendezvous hashing, so that one
        address more or less moves no others). Those to `avoid` come last: they just
        failed, but may be the only ones.
        """
        self._turn += 1
        turn = self._turn % max(1, len(self.endpoints))
        rotated = self.endpoints[turn:] + self.endpoints[:turn]
        usable = [
            (endpoint, _takes_calls(endpoint), endpoint.load)
            for endpoint in rotated
            if endpoint.state is not State.MISMATCHED
        ]
        near = min((load for _, takes, load in usable if takes), default=0)
        near += 0 if affinity is None else AFFINITY_SLACK

        def rank(one: tuple[Endpoint, bool, int]) -> tuple[int, int, bytes]:
            endpoint, takes, load = one
            serves = endpoint.state is State.SERVING
            doubt = 4 * (endpoint in avoid) + 2 * (not serves) + (not takes)
            score = b"" if affinity is None else _score(affinity, endpoint)
            return doubt, max(near, load), score

        return [endpoint for endpoint, _, _ in sorted(usable, key=rank)]

    def failure(self) -> ServiceError:
        """The error of a call for which no address is left."""
        if self.is_mismatched():
            return ModelMismatch(f"the {self.tier} tier serves another model than this gateway")
        return self.unavailable(f"the {self.tier} tier is not ready")

    def unavailable(self, message: str) -> ServiceError:
        """The error of a call that can be made again, to this tier or another address of it."""
        return error_for(self.reason, message, retry_after_s=RETRY_AFTER_S)

    def is_mismatched(self) -> bool:
        """Whether there are addresses, and every one serves another bundle."""
        states = {endpoint.state for endpoint in self.endpoints}
        return states == {State.MISMATCHED}

    def has_served(self) -> bool:
        """Whether the tier has been there at some time since this gateway started."""
        return self._has_served or any(endpoint.has_served for endpoint in self.endpoints)

    def serving(self) -> list[Endpoint]:
        """The addresses that served at the last look, ejected ones included."""
        return [endpoint for endpoint in self.endpoints if endpoint.state is State.SERVING]

    def status(self) -> str:
        """The tier's state in one word: its best address's."""
        states = {endpoint.state for endpoint in self.endpoints}
        order = (State.SERVING, State.NOT_SERVING, State.UNKNOWN, State.MISMATCHED)
        return next((state for state in order if state in states), State.UNREACHABLE).value
