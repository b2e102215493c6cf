"""How long the certificates of a service are still valid: for its metrics, and for its log in time.

The files are read anew each time, as everybody who shows them does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protos.wire.credentials import CredentialError, Credentials, certificate_end

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
WARNED_S = 7 * DAY_S  # before the end


def seconds_left(
    shown: Sequence[Credentials], *, now: datetime | None = None
) -> Mapping[str, float]:
    """Seconds until each certificate ends, by the name of its setting; below 0 afterwards.

    A file that cannot be read just now is left out.

    Args:
        shown: What a service shows: those without a certificate are left out.
        now: With a time zone; None: now.
    """
    now = now or datetime.now(UTC)
    found = dict[str, float]()
    for credentials in shown:
        with suppress(CredentialError):
            end = certificate_end(credentials)
            if end is not None:
                found[f"{credentials.prefix}certificate"] = (end - now).total_seconds()
    return found


def warn_of_ends(shown: Sequence[Credentials], *, now: datetime | None = None) -> None:
    """Writes one warning of each certificate that ends within a week; see `seconds_left`."""
    for name, left_s in seconds_left(shown, now=now).items():
        if left_s <= 0:
            logger.warning("%s ended %.1f days ago: nobody may trust it", name, -left_s / DAY_S)
        elif left_s < WARNED_S:
            logger.warning(
                "%s ends in %.1f days: renew it (`tandem certificates` does), its file is read"
                " again without a restart",
                name,
                left_s / DAY_S,
            )


@asynccontextmanager
async def watching(shown: Sequence[Credentials], *, every_s: float = DAY_S) -> AsyncIterator[None]:
    """Warns now, and every day while the block runs."""

    async def watch() -> None:
        while True:
            warn_of_ends(shown)
            await asyncio.sleep(every_s)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class CertificateEnds(Collector):
    """The gauge of a tier's certificates, read when it is asked for.

    Args:
        tier: The prefix of its name.
        shown: See `seconds_left`.
    """

    def __init__(self, tier: str, shown: Sequence[Credentials]) -> None:
        self._tier = tier
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            f"tandem:{self._tier}_certificate_left_seconds",
            "Until a certificate that is shown ends, by its setting; below 0 afterwards.",
            labels=["certificate"],
        )
        for name, left_s in seconds_left(self._shown).items():
            family.add_metric([name], left_s)
        yield family
