"""An application that several fronts share: brought by the first, ended by the last.

Every front does the same in rounds: it keeps replicas off hosts without the bundle, and brings the
application back where somebody took it away.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protos.machine.threads import apart
from vision_service.cluster import application as serving
from vision_service.cluster import fronts, hosts
from vision_service.cluster.application import Application, NoReplicaStarted
from vision_service.cluster.hosts import Bars, Host

logger = logging.getLogger(__name__)

PREFIX = "vision-"  # of every shared application's name

_ROUND_S = 5.0
_POLL_S = 0.2
_LEAVE_S = 20.0
_REMIND_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where replicas may run.

    Attributes:
        digest: Of the bundle that a host must have.
        folders: Where it may be; see `places.folders`.
        needs: Ray resources of a replica.
        labels: That a host's node must have.
        startup_timeout_s: How long the first replica may take.
    """

    digest: str
    folders: Sequence[str]
    needs: Mapping[str, float]
    labels: Mapping[str, str]
    startup_timeout_s: float


class SharedApplication:
    """This front's share in an application; `start` once, `stop` once.

    Args:
        application: What runs.
        placement: Where.
        keep: Leave it when the last front stops.
        on_handle: Called with a handle of the application whenever it is brought.
    """

    def __init__(
        self,
        application: Application,
        placement: Placement,
        *,
        keep: bool,
        on_handle: Callable[[Any], None],
    ) -> None:
        self._application = application
        self._placement = placement
        self._keep = keep
        self._on_handle = on_handle
        self._bars = Bars(application.name)
        self._known: dict[str, Host] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._entered = False

    async def start(self) -> None:
        """Brings the application where it is not there; returns when a replica runs.

        Raises:
            NoReplicaStarted: none did in time.
        """
        await apart(lambda: fronts.enter(self._application.name))
        self._entered = True
        # The hosts first: a replica on one without the bundle would only fail there.
        await apart(self._look_at_hosts)
        await apart(self._bring)
        await self._first_replica()
        self._rounds = asyncio.create_task(self._go_round())

    async def stop(self) -> None:
        """Ends the application where no other front uses it; leaves it where Ray's head is away."""
        if self._rounds is not None:
            self._rounds.cancel()
        if not self._entered:
            return
        try:
            await asyncio.wait_for(apart(self._leave), _LEAVE_S)
        except Exception as error:
            # The border to Ray: whatever keeps it from answering, this process must still end.
            logger.warning("the application may stay: Ray said %s", type(error).__name__)

    def _leave(self) -> None:
        name = self._application.name
        left = fronts.leave(name)
        if left or self._keep or serving.is_declared(name):
            logger.info("the application %s stays: %d other fronts use it", name, left)
            return
        end(name)
        logger.info("the application %s is ended: no other front used it", name)

    def _bring(self) -> None:
        name = self._application.name
        standing = serving.standing_of(name)
        if standing is not None and serving.is_declared(name):
            logger.info("the application %s was brought by serve deploy", name)
            self._on_handle(serving.handle_of(name))
            return
        if standing is not None and standing.failure is not None:
            serving.delete(name)  # Serve tries no more with what is the same
        logger.info("the application %s is %s", name, "there" if standing else "brought")
        self._on_handle(self._application.run())

    async def _first_replica(self) -> None:
        """Waits, and says every half minute that it does."""
        begun_s = reminded_s = time.monotonic()
        while True:
            standing = await apart(lambda: serving.standing_of(self._application.name))
            if standing is not None and (standing.running or standing.complete):
                return
            if standing is not None and standing.failure is not None:
                raise NoReplicaStarted(standing.failure)
            now_s = time.monotonic()
            if now_s - begun_s > self._placement.startup_timeout_s:
                raise NoReplicaStarted(
                    f"no replica started in {now_s - begun_s:.0f} s; {self._room()}"
                )
            if now_s - reminded_s > _REMIND_S:
                logger.warning("no replica runs yet; %s", self._room())
                reminded_s = now_s
            await asyncio.sleep(_POLL_S)

    def _room(self) -> str:
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in self._placement.needs.items())
        return f"a replica needs {wanted} on one of {len(self._known)} hosts that could have it"

    async def _go_round(self) -> None:
        answered = True
        while True:
            await asyncio.sleep(_ROUND_S)
            try:
                await apart(self._round)
                answered = True
            except Exception:
                # The border to Ray, whose errors have no common base: replicas serve without its
                # head, so that it is away must not end this front, and is said once.
                if answered:
                    logger.warning("the Ray cluster does not answer; nothing scales", exc_info=True)
                answered = False

    def _round(self) -> None:
        standing = serving.standing_of(self._application.name)
        # Where a replica is missing, a host may have lost what it had.
        self._look_at_hosts(again=standing is not None and not standing.complete)
        if standing is None:
            self._bring()

    def _look_at_hosts(self, *, again: bool = False) -> None:
        """Bars hosts without the bundle, and lifts bars from those that have it now.

        Args:
            again: Ask also the hosts that had it.
        """
        place = self._placement
        there = {host.node_id: host for host in hosts.able(needs=place.needs, labels=place.labels)}
        barred = self._bars.nodes() & there.keys()
        known = set() if again else self._known.keys()
        asked = [host for node_id, host in there.items() if node_id not in barred | known]
        for host, problem in hosts.problems(asked, place.digest, place.folders).items():
            if problem is not None:
                self._bars.put(host)
                _name(host, problem)
        for node_id in barred:
            host = there[node_id]
            problem = self._bars.problem(host, place.digest, place.folders)
            if problem is None:
                self._bars.lift({node_id})
                logger.info("host %s has the bundle now", host)
            elif node_id not in self._known:
                _name(host, problem)
        self._known = there


def _name(host: Host, problem: str) -> None:
    logger.warning("host %s gets no replica: %s", host, problem)


def end(name: str) -> None:
    """Ends an application and lifts its bars."""
    serving.delete(name)
    bars = Bars(name)
    bars.lift(bars.nodes())
