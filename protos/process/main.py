"""The main of a service process: settings, log, signals, serve, drain, exit status."""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from protos.bundle.manifest import BundleError
from protos.process import certificates, logs, settings, tracing
from protos.process.security import Listening, check_exposure
from protos.process.server import BindError
from protos.process.settings import SettingError
from protos.process.trace_export import otlp_sink
from protos.wire.credentials import CredentialError, Credentials

logger = logging.getLogger(__name__)

EXIT_LOST = 1  # what the service needs went away
EXIT_BAD_START = 2  # a setting, the bundle or a port is wrong

# More than any service needs for the connections that it may be left with for a while.
MOST_DESCRIPTORS = 65_536


class ServiceConfig(Listening, Protocol):
    """What every service's settings have."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def trace_endpoint(self) -> str | None: ...
    @property
    def trace_ratio(self) -> float: ...
    @property
    def shown(self) -> tuple[Credentials, ...]: ...


C = TypeVar("C", bound=ServiceConfig)


class ServiceProcess:
    """One running process, as its `serve` sees it.

    Attributes:
        stop: Set when SIGTERM or SIGINT arrived.
    """

    def __init__(self, tier: str) -> None:
        self.stop = asyncio.Event()
        self._tier = tier

    def catch_signals(self) -> None:
        """Takes the signals that stop a service; again where a library took them for itself."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)

    def announce(self, **ports: int | None) -> None:
        """Writes the line on stdout that says where this process serves; None: nowhere."""
        open_ports = {name: port for name, port in ports.items() if port is not None}
        event = {"event": "serving", "tier": self._tier, "ports": open_ports}
        # What is there by now stays. The collector would look through it again and again, and stop
        # a gateway's answers for some 60 ms after each few hundred requests.
        gc.collect()
        gc.freeze()
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    async def stopped(self) -> None:
        """Returns when the process is to drain."""
        await self.stop.wait()
        logger.info("draining")


def run(
    program: str,
    *,
    tier: str,
    config_type: type[C],
    serve: Callable[[C, ServiceProcess], Awaitable[int]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Runs one service until SIGTERM or SIGINT.

    Args:
        program: The module's name, as in `python -m program`.
        tier: "vision", "decoder" or "gateway"; environment names begin with it.
        config_type: Dataclass of the service's settings.
        serve: Serves until `ServiceProcess.stopped` returns, drains, and returns the exit status.
        loop_factory: Makes the event loop; asyncio's own where None.

    Returns:
        What `serve` returned; `EXIT_BAD_START` after one line on stderr when a setting, a
        certificate, the bundle or a port is wrong.
    """
    try:
        config = settings.load(
            config_type,
            program=program,
            prefix=tier.upper(),
            argv=sys.argv[1:],
            environ=os.environ,
        )
        logs.configure(config.log_level, config.log_format)
        logger.info("settings: %s", settings.describe(config))
        check_exposure(config)
        allow_descriptors()
        with (
            otlp_sink(config.trace_endpoint, f"tandem-{tier}") as sink,
            tracing.exporting(sink, ratio=config.trace_ratio),
            asyncio.Runner(loop_factory=loop_factory) as runner,
        ):
            return runner.run(_serve(tier, config, serve))
    except (SettingError, CredentialError, BundleError, BindError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        return EXIT_BAD_START


def allow_descriptors() -> None:
    """Raises the soft limit of open files as far as the hard one lets it, to `MOST_DESCRIPTORS`.

    The usual soft limit, 1,024, is there for programs that use `select`. A service with so many
    idle connections could take no other, and would look dead.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(tier: str, config: C, serve: Callable[[C, ServiceProcess], Awaitable[int]]) -> int:
    process = ServiceProcess(tier)
    process.catch_signals()
    async with certificates.watching(config.shown):
        status = await serve(config, process)
    logger.info("stopped")
    return status
