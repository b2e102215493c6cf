"""All three services on one machine: started together, stopped together."""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from deploy.stack.ports import PortConflict, Ports, settle_ports
from deploy.stack.restarts import Restarts, passed
from deploy.stack.tier import Echo, Tier, TierEvent, TierExited, TierReady, TierStarting
from protos.bundle.manifest import MANIFEST_NAME, PARTS, Bundle, BundleError
from protos.wire.addresses import join, reachable

TIERS = ("vision", "decoder", "gateway")
MODULES = {"vision": "vision_service", "decoder": "decoder_service", "gateway": "gateway"}
FAREWELL_S = 3.0  # for the gateway to end its streams once the tiers behind it are gone
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


class LaunchError(Exception):
    """The stack cannot start or did not stay up; the text is one line.

    `exit_code` is 2 when the user must change something, 1 when a service failed.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSettings:
    """What to start, and how."""

    bundle: Path
    host: str = "127.0.0.1"  # of the gateway; the tiers behind it listen on loopback alone
    ports: Ports = field(default_factory=Ports)
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)  # more flags, by tier
    # More of the environment, by tier: for secrets, which flags would show to all of the machine.
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    log_dir: Path | None = None
    startup_timeout_s: float = 600.0
    notice_s: float = 5.0  # between words on the tiers that are still starting
    drain_timeout_s: float = 15.0
    # How a tier is started, for tests that put other programs in the services' places.
    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)


class LocalStack:
    """The three services as children of this process.

    Start it from the main thread (see `Tier`). Use as a context manager, or call `stop`.
    """

    def __init__(self, settings: StackSettings, *, echo: Echo | None = None) -> None:
        self.settings = settings
        self.ports = settings.ports
        self.ready: dict[str, TierReady] = {}
        self._events: SimpleQueue[TierEvent] = SimpleQueue()
        self._tiers: dict[str, Tier] = {}
        self._echo = echo

    def start(
        self,
        on_ready: Callable[[TierReady], None] = lambda event: None,
        on_starting: Callable[[TierStarting], None] = lambda event: None,
    ) -> None:
        """Checks bundle and ports, starts the tiers together, waits until all serve.

        Args:
            on_ready: Told of each tier that serves.
            on_starting: Told of each tier that does not yet, every few seconds.

        Raises:
            LaunchError: the bundle is missing or damaged, a port is taken, a tier stopped or
                was not ready in time. Nothing is left running.
        """
        check_bundle(self.settings.bundle)
        try:
            self.ports = settle_ports(self.settings.host, self.settings.ports)
        except PortConflict as error:
            raise LaunchError(str(error), exit_code=2) from error
        try:
            for name in TIERS:
                self._tiers[name] = self._tier(name)
                self._tiers[name].start()
            self._await_ready(on_ready, on_starting)
        except BaseException:  # Ctrl-C included: whatever was started must not stay.
            self.stop(drain=False)
            raise

    def wait(
        self,
        restarts: Restarts | None = None,
        *,
        on_ready: Callable[[TierReady], None] = lambda event: None,
        on_restart: Callable[[LaunchError, float], None] = lambda error, pause_s: None,
    ) -> LaunchError:
        """Blocks until a tier has ended by itself once too often; says which one and why.

        Args:
            restarts: How often a tier is started again; None: never.
            on_ready: Told of each tier that serves again.
            on_restart: Told why a tier ended, and the pause before its next start, seconds.
        """
        allowed = restarts or Restarts(0)
        due: dict[str, float] = {}  # when the tiers that are down start again
        late: dict[str, float] = {}  # when those that start again must serve
        while True:
            event = self._next_event(min((*due.values(), *late.values()), default=None))
            if isinstance(event, TierReady):
                late.pop(event.tier, None)
                self.ready[event.tier] = event
                on_ready(event)
            elif isinstance(event, TierExited):
                late.pop(event.tier, None)
                error = _exit_error(event, "stopped")
                pause = allowed.next_pause_s(event.tier)
                if pause is None:
                    return error
                on_restart(error, pause)
                due[event.tier] = time.monotonic() + pause
            for name in passed(due):
                self._tiers[name] = self._tier(name, again=True)
                self._tiers[name].start()
                late[name] = time.monotonic() + self.settings.startup_timeout_s
            for name in passed(late):
                self._tiers[name].kill()  # its end comes as an event

    def _next_event(self, deadline: float | None) -> TierEvent | None:
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            return self._events.get(timeout=timeout)
        except Empty:
            return None

    def stop(self, *, drain: bool = True) -> None:
        """Stops the gateway first, so that its streams can end, then the tiers behind it.

        Streams that outlast the drain time, or are given none, end with an error event: the
        gateway writes it when the tiers behind it are gone.
        """
        gateway = self._tiers.get("gateway")
        behind = [self._tiers[name] for name in ("decoder", "vision") if name in self._tiers]
        if gateway is not None:
            gateway.terminate()
        drained = gateway is None or gateway.wait(self.settings.drain_timeout_s if drain else 0.0)
        if drained and drain:
            self._stop_together(behind)
        for tier in behind:
            tier.kill()
        if gateway is not None and not gateway.wait(FAREWELL_S):
            gateway.kill()
        self._tiers.clear()

    def _stop_together(self, tiers: Sequence[Tier]) -> None:
        deadline = time.monotonic() + self.settings.drain_timeout_s
        for tier in tiers:
            tier.terminate()
        for tier in tiers:
            tier.wait(max(deadline - time.monotonic(), 0.0))

    def pid(self, tier: str) -> int:
        """Process id of a service itself (not of its guard)."""
        found = self._tiers[tier].pid
        if found is None:
            raise LookupError(f"{tier} has not started")
        return found

    @property
    def addresses(self) -> Mapping[str, str]:
        """`host:port` of each gRPC server, by tier."""
        return {
            "vision": f"127.0.0.1:{self.ports.vision}",
            "decoder": f"127.0.0.1:{self.ports.decoder}",
            "gateway": join(reachable(self.settings.host), self.ports.grpc),
        }

    @property
    def http_url(self) -> str:
        """Base URL of the OpenAI front door."""
        scheme = "https" if self._encrypted() else "http"
        return f"{scheme}://{join(reachable(self.settings.host), self.ports.http)}/v1"

    def _encrypted(self) -> bool:
        """Whether the gateway was told of a certificate for its doors."""
        flags = self.settings.flags.get("gateway", ())
        told = {**os.environ, **self.settings.environment.get("gateway", {})}
        by_flag = any(flag.startswith("--door-certificate=") for flag in flags)
        return by_flag or bool(told.get("GATEWAY_DOOR_CERTIFICATE"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _tier(self, name: str, *, again: bool = False) -> Tier:
        log_dir = self.settings.log_dir
        return Tier(
            name,
            [*self._program(name), *self._flags(name)],
            events=self._events,
            log_file=None if log_dir is None else log_dir / f"{name}.log",
            echo=self._echo,
            keep_log=again,
            environment=self.settings.environment.get(name, {}),
        )

    def _program(self, name: str) -> Sequence[str]:
        # -P: a folder called `gateway` where the user happens to stand must not be imported.
        return self.settings.programs.get(name) or (sys.executable, "-P", "-m", MODULES[name])

    def _flags(self, name: str) -> Sequence[str]:
        bundle = f"--bundle={self.settings.bundle.resolve()}"
        ports = self.ports
        if name == "gateway":
            own = [
                f"--vision=127.0.0.1:{ports.vision}",
                f"--decoder=127.0.0.1:{ports.decoder}",
                f"--http-port={ports.http}",
                f"--grpc-port={ports.grpc}",
                f"--host={self.settings.host}",
            ]
        else:
            port = ports.vision if name == "vision" else ports.decoder
            own = [f"--port={port}", "--host=127.0.0.1"]
            if name == "vision":
                own.append(f"--startup-timeout-s={self.settings.startup_timeout_s}")
        return [bundle, *own, *self.settings.flags.get(name, ())]

    def _await_ready(
        self,
        on_ready: Callable[[TierReady], None],
        on_starting: Callable[[TierStarting], None],
    ) -> None:
        deadline = time.monotonic() + self.settings.startup_timeout_s
        notice = time.monotonic() + self.settings.notice_s
        while len(self.ready) < len(TIERS):
            left = min(deadline, notice) - time.monotonic()
            try:
                event = self._events.get(timeout=max(left, 0.0))
            except Empty:
                late = [name for name in TIERS if name not in self.ready]
                if time.monotonic() >= deadline:
                    raise self._too_late(late) from None
                for name in late:
                    on_starting(self._tiers[name].starting())
                notice = time.monotonic() + self.settings.notice_s
                continue
            if isinstance(event, TierExited):
                raise _exit_error(event, "stopped while starting", self._see_logs())
            self.ready[event.tier] = event
            on_ready(event)

    def _too_late(self, tiers: Sequence[str]) -> LaunchError:
        limit = f"{self.settings.startup_timeout_s:.0f} s"
        return LaunchError(
            f"{' and '.join(tiers)} not ready after {limit}{self._see_logs()}", exit_code=1
        )

    def _see_logs(self) -> str:
        return "" if self.settings.log_dir is None else f"; logs: {self.settings.log_dir}"


def check_bundle(path: Path) -> Bundle:
    """Opens a bundle and compares the sizes, and small files' digests, with its manifest.

    Raises:
        LaunchError: missing or damaged.
    """
    try:
        bundle = Bundle.open(path)
        bundle.verify_files(PARTS)
    except BundleError as error:
        raise LaunchError(f"{error}{_export_hint(path)}", exit_code=2) from error
    return bundle


def _export_hint(path: Path) -> str:
    """What to do about a checkpoint in a bundle's place; "" for anything else."""
    if (path / "config.json").is_file() and not (path / MANIFEST_NAME).exists():
        return f"; this is a checkpoint: `tandem export {path} BUNDLE` makes a bundle of it"
    if not path.exists() and _HUB_ID.fullmatch(str(path)):
        return f"; if this is a model of the hub, `tandem export {path} BUNDLE` makes one of it"
    return ""


def _exit_error(event: TierExited, verb: str, logs: str = "") -> LaunchError:
    if event.reason and event.code == 2:  # a service's own one-line complaint
        complaint = event.reason.removeprefix(f"{MODULES[event.tier]}: ")
        return LaunchError(f"{event.tier}: {complaint}", exit_code=2)
    how = f"signal {event.code - 128}" if event.code > 128 else f"exit code {event.code}"
    why = f": {event.reason}" if event.reason else ""
    return LaunchError(f"{event.tier} {verb} ({how}){why}{logs}", exit_code=1)
