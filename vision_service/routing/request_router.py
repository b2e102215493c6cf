"""Serve's request router, ours: asks the desk which replica is done with an image first.

Serve pickles this module's classes by value, once for each process that calls replicas, so all
that is shared is reached through the imported module `desk`.
"""

from collections.abc import Mapping
from typing import Any

from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve._private.request_router.request_router import RequestRouter

from vision_service.routing import desk, wire


class EarliestFinishRouter(PowerOfTwoChoicesRequestRouter):  # type: ignore[misc]
    """Sends an image where it should be done first; what the desk cannot say, Serve chooses."""

    def initialize_state(self, ahead_s: float) -> None:
        """Takes the deployment's `request_router_kwargs`.

        Args:
            ahead_s: Work that a replica may have before it; what is more waits here.
        """
        self._ahead_s = ahead_s

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """See Serve; each rank is one replica, none means that the image waits here."""
        number = wire.number_of(pending_request.args) if pending_request is not None else None
        if number is not None:
            by_name = {one.replica_id.unique_id: one for one in candidate_replicas}
            for name, one in by_name.items():
                desk.DESK.heard(name, wire.report_from_plain(one.routing_stats))
            order = desk.DESK.choose(number, ahead_s=self._ahead_s)
            if order is not None:
                pending_request.routing_context.should_backoff = True
                return [[by_name[name]] for name in order if name in by_name]
        chosen: list[list[Any]] = await super().choose_replicas(candidate_replicas, pending_request)
        return chosen

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """See Serve: a replica has taken it."""
        number = wire.number_of(pending_request.args)
        if number is not None:
            desk.DESK.sent(number, replica_id.unique_id)

    def update_replicas(self, replicas: list[Any]) -> None:
        """See Serve: these are running now."""
        super().update_replicas(replicas)
        self._tell()

    def on_replica_actor_died(self, replica_id: Any) -> None:
        """See Serve: this one is not."""
        super().on_replica_actor_died(replica_id)
        self._tell()

    # Of the images that wait here, the one whose turn it is takes the replica that was chosen for
    # it. The base class of ours would give it to the one that waits longest, whatever its size.
    def _fulfill_next_pending_request(self, replica: Any, request_metadata: Any = None) -> None:
        RequestRouter._fulfill_next_pending_request(self, replica, request_metadata)

    def _tell(self) -> None:
        replicas: Mapping[Any, Any] = self.curr_replicas
        desk.DESK.replicas([replica_id.unique_id for replica_id in replicas])
        for replica_id, one in replicas.items():
            desk.DESK.heard(replica_id.unique_id, wire.report_from_plain(one.routing_stats))
