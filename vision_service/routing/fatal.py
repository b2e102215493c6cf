"""Images that ended replicas: a second death in another replica, and an image is refused.

A replica dies of many things, and what it was encoding is mostly not to blame. So an image that has
been encoded since is innocent again, and the others are forgotten after a while.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from protos.wire.errors import InvalidRequest, Reason
from vision_service.jobs import EncodeJob, Patches

_ENOUGH = 2  # replicas that an image may end
_REMEMBERED_S = 600.0
_MOST = 1024  # digests that are remembered


@dataclass(frozen=True, slots=True)
class _Deaths:
    replicas: frozenset[str]
    last_s: float


class FatalImages:
    """Digests of images whose replicas died meanwhile.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: OrderedDict[bytes, _Deaths] = OrderedDict()

    def check(self, job: EncodeJob) -> None:
        """Costs a digest only where a replica has died lately.

        Raises:
            InvalidRequest: the image has ended two replicas.
        """
        deaths = self._of(job)
        if deaths is not None and len(deaths.replicas) >= _ENOUGH:
            name = "patches" if isinstance(job.source, Patches) else "image"
            raise InvalidRequest(
                f"{name} ended {_ENOUGH} encoder replicas and is refused for"
                f" {_REMEMBERED_S / 60:.0f} minutes",
                reason=Reason.INVALID_IMAGE,
                param=name,
            )

    def died(self, job: EncodeJob, replica: str) -> None:
        """A replica died while it had the image."""
        deaths = self._of(job)
        replicas = frozenset() if deaths is None else deaths.replicas
        digest = _digest(job)
        self._deaths[digest] = _Deaths(replicas | {replica}, self._clock())
        self._deaths.move_to_end(digest)
        if len(self._deaths) > _MOST:
            self._deaths.popitem(last=False)

    def survived(self, job: EncodeJob) -> None:
        """A replica has encoded the image."""
        if self._of(job) is not None:
            del self._deaths[_digest(job)]

    def _of(self, job: EncodeJob) -> _Deaths | None:
        while self._deaths:
            oldest = next(iter(self._deaths))
            if self._clock() - self._deaths[oldest].last_s < _REMEMBERED_S:
                return self._deaths.get(_digest(job))
            del self._deaths[oldest]
        return None


def _digest(job: EncodeJob) -> bytes:
    source = job.source
    data = source.pixel_values.data if isinstance(source, Patches) else source.data
    return hashlib.sha256(data).digest()
