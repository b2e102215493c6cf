"""What Serve runs in each replica's process."""

from collections.abc import Sequence
from typing import Any

from protos.bundle.manifest import BundleError
from vision_service import places


class EncoderDeployment:
    """A `Replica` as Serve makes and calls it.

    Args:
        settings: The fields of `ReplicaSettings`.
        digest: The bundle's, on a cluster whose hosts have it in folders of their own. A host
            without it has no replica: what is raised here makes Serve try another one.
        folders: Where it may be; see `places.folders`.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        digest: str | None = None,
        folders: Sequence[str] = (),
    ) -> None:
        # Imported here so that torch stays out of the front's process.
        from vision_service.replicas.replica import Replica, ReplicaSettings

        self._replica: Replica | None = None
        self._problem: str | None = None
        if digest is not None:
            bundle = places.locate(digest, folders)
            self._replica = Replica.load(
                ReplicaSettings(**{**settings, "bundle": str(bundle.path)})
            )
            return
        try:
            self._replica = Replica.load(ReplicaSettings(**settings))
        except BundleError as error:  # Serve would retry and bury the one clear line
            self._problem = str(error)

    async def problem(self) -> str | None:
        """Why the bundle could not be loaded."""
        return self._problem

    async def encode(self, plain: dict[str, Any]) -> dict[str, Any]:
        """See Replica.encode."""
        if self._replica is None:
            raise RuntimeError(self._problem)
        return await self._replica.encode(plain)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve hands to the autoscaling policy; it asks by this name."""
        return {} if self._replica is None else self._replica.reporter.for_policy()

    async def record_routing_stats(self) -> dict[str, Any]:
        """What Serve hands to every request router; it asks by this name."""
        return {} if self._replica is None else self._replica.reporter.for_routers()
