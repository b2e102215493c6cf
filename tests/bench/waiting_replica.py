"""An encoder replica whose tower waits as long as a measured one computes."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from vision_service.jobs import FloatArray, Patches
from vision_service.replicas.replica import Replica, ReplicaSettings
from vision_service.scaling.cost import Cost, Work
from vision_service.towers.members import Members

# The INT8 tower of the 2B model on two cores (tests/bench/results/towers.md): 874, 809 and 484
# patches per second in images of 432, 1024 and 3072 patches.
MEASURED = Cost(patch_s=1.06e-3, pair_s=3.3e-7)

_ROWS = np.zeros((1, 1, 8), np.float32)


class WaitingTower:
    """A tower by time alone; see `tower.BatchEncoder`."""

    computes_all = True

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """Waits; features are of one row, for nobody reads them."""
        time.sleep(MEASURED.seconds(Work.sum(Work.of(patches.grid) for patches in batch)))
        return [_ROWS for _ in batch]


class WaitingDeployment:
    """A `Replica` as Serve makes it, like `deployment.EncoderDeployment`, without a bundle."""

    def __init__(self, settings: dict[str, Any]) -> None:
        # Only patches are sent, so there is neither a plan of images nor a box for their files.
        nothing: Any = None
        tower = WaitingTower()
        self._replica = Replica(ReplicaSettings(**settings), nothing, tower, nothing)

    async def problem(self) -> str | None:
        """None: there is no bundle."""
        return None

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """See Replica.encode."""
        return await self._replica.encode(plain)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See EncoderDeployment."""
        return self._replica.reporter.for_policy()

    async def record_routing_stats(self) -> dict[str, Any]:
        """See EncoderDeployment."""
        return self._replica.reporter.for_routers()
