"""An encoder replica whose features are ready before it is asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from protos.media.images import SETTINGS_NAME, ImageSettings
from vision_service import places
from vision_service.jobs import FloatArray, Patches
from vision_service.media import boxed
from vision_service.replicas.replica import Replica, ReplicaSettings, image_plan
from vision_service.towers.members import Members

LEVELS, WIDTH = 4, 2048  # embeddings and three levels of DeepStack, as of the 2B model
MOST_TOKENS = 1024
PATCHES_OF_A_TOKEN = 4


class ReadyTower:
    """Rows of one buffer; see `tower.BatchEncoder`."""

    computes_all = True

    def __init__(self) -> None:
        values = np.random.default_rng(0).normal(size=(LEVELS, MOST_TOKENS, WIDTH))
        self._features = values.astype(np.float32)

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """The first rows, float32 [LEVELS, N, WIDTH], without a copy where N is the most."""
        return [
            self._features[:, : patches.grid.patches // PATCHES_OF_A_TOKEN] for patches in batch
        ]


class ReadyDeployment:
    """A `Replica` as Serve makes it, like `deployment.EncoderDeployment`: only its tower is ours.

    Args:
        settings: The fields of `ReplicaSettings`.
        digest: The bundle's, whose way of reading images is used.
        folders: Where it may be.
    """

    def __init__(self, settings: dict[str, Any], digest: str, folders: Sequence[str]) -> None:
        bundle = places.locate(digest, folders)
        chosen = ReplicaSettings(**{**settings, "bundle": str(bundle.path)})
        plan = image_plan(chosen, ImageSettings.from_file(bundle.path / SETTINGS_NAME))
        self._replica = Replica(chosen, plan, ReadyTower(), boxed.new_box(plan))

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """See Replica.encode."""
        return await self._replica.encode(plain)

    async def record_routing_stats(self) -> dict[str, Any]:
        """See EncoderDeployment."""
        return self._replica.reporter.for_routers()
