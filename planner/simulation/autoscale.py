"""The vision tier's autoscaling policy, once a second, over simulated replicas."""

from planner.costs import Costs
from planner.simulation.clock import Clock
from planner.simulation.encoder import Encoders, Replica
from vision_service.scaling.policy import Aims, Memory, ReplicaLoad, TierLoad, decide

PERIOD_S = 1.0
# Over which what comes is averaged.
OFFERED_S = 10.0


class Autoscale:
    """Asks the policy and has replicas started and ended.

    Args:
        clock: The simulation's.
        costs: For a replica's start.
        encoders: What grows and shrinks.
        aims: The policy's.

    Attributes:
        replica_s: Replicas times seconds, those that start included.
    """

    def __init__(self, clock: Clock, costs: Costs, encoders: Encoders, aims: Aims) -> None:
        self.replica_s = 0.0
        self._clock = clock
        self._start_s = costs.start_s.get("vision", 0.0)
        self._pace = costs.max_batch_patches / costs.encode.seconds(costs.max_batch_patches)
        self._encoders = encoders
        self._aims = aims
        self._memory = Memory()
        self._asked = len(encoders.replicas)
        self._offered: dict[Replica, float] = {}
        self._seen: dict[Replica, float] = {}

    def until(self, seconds: float) -> None:
        """Looks once a period as long as requests come."""
        moment = 0.0
        while moment < seconds:
            self._clock.at(moment, self._look)
            moment += PERIOD_S

    def _look(self) -> None:
        self.replica_s += self._asked * PERIOD_S
        load = TierLoad(
            replicas=[self._load(replica) for replica in self._encoders.replicas],
            asked=self._asked,
            unassigned=self._encoders.unassigned,
        )
        decision = decide(load, self._aims, self._memory, self._clock.now)
        self._memory = decision.memory
        for _ in range(self._asked, decision.replicas):
            self._clock.at(self._clock.now + self._start_s, self._encoders.grow)
        for _ in range(decision.replicas, self._asked):
            if self._encoders.replicas:
                self._encoders.shrink()
        self._asked = decision.replicas

    def _load(self, replica: Replica) -> ReplicaLoad:
        came = replica.given_s - self._seen.get(replica, 0.0)
        self._seen[replica] = replica.given_s
        weight = PERIOD_S / OFFERED_S
        offered = self._offered.get(replica, 0.0)
        offered += weight * (came / PERIOD_S - offered)
        self._offered[replica] = offered
        return ReplicaLoad(
            waiting_s=replica.waiting_s,
            running_s=replica.running_s,
            offered=offered,
            patches_per_s=self._pace,
            image_s=replica.given_s / max(1, replica.given),
        )
