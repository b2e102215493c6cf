"""One load on one plan, from arrivals to answers: a gateway's router, decoders, replicas."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.fleet.router import Endpoint, Router, State
from planner.costs import Costs
from planner.fields import PlanError
from planner.load import Load
from planner.processors import CoresFor, Processor, cores_for
from planner.simulation.autoscale import Autoscale
from planner.simulation.clock import Clock
from planner.simulation.core import Core
from planner.simulation.decoder import Decoder
from planner.simulation.encoder import Encoders, ImageQueue
from planner.simulation.outcome import Answer, Gaps, Outcome, outcome
from planner.simulation.requests import arrivals
from planner.simulation.spread import Spread
from planner.simulation.way import OwnCores, SharedCores, Way, shared_cores
from protos.wire.errors import Reason
from vision_service.scaling.policy import Aims


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many of each there are.

    Attributes:
        replicas: Of the encoder; 0 where nodes are whole.
        decoders: Decoders, or whole nodes.
        most_replicas: With it an autoscaler makes the replicas more, and fewer again.
        whole: Whether each decoder encodes too, on its own cores: passes and steps by turns.
    """

    replicas: int
    decoders: int
    most_replicas: int | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A decoder, and the images that wait for its own tower."""

    decoder: Decoder
    images: ImageQueue


def simulate(costs: Costs, load: Load, plan: Plan) -> Outcome:
    """What a load finds at some replicas and decoders.

    Args:
        costs: Of every machine of a kind.
        load: Requests, targets, and what of them counts.
        plan: At least one decoder, and a replica where images come.

    Raises:
        PlanError: no request comes in the time that counts.
    """
    return Simulation(costs, load, plan).run()


class Simulation:
    """One run; see `simulate`.

    Attributes:
        answers: To every request; whole when the run is over.
        gaps: Between their tokens.
    """

    def __init__(self, costs: Costs, load: Load, plan: Plan) -> None:
        self.answers = [
            Answer(arrival=arrival)
            for arrival in arrivals(load, max_context=costs.decoder.max_context)
        ]
        if not self.answers or self.answers[-1].arrival.moment < load.warm_up_s:
            raise PlanError(
                f"seconds is {load.seconds:g}, expected so many that a request comes after"
                f" warm_up_s ({load.warm_up_s:g})"
            )
        self._costs, self._load, self._plan = costs, load, plan
        self._clock = Clock()
        self.gaps = Gaps(target_s=load.itl_s, since_s=load.warm_up_s, until_s=load.seconds)
        self._cores = cores = shared_cores(self._clock, costs)
        self._way: Way = OwnCores(self._clock, costs, self.gaps)
        if cores:
            self._way = SharedCores(self._clock, costs, self.gaps, cores)
        self._encoders = Encoders(
            self._clock,
            costs,
            count=plan.replicas,
            most=plan.most_replicas,
            core=cores.get("replica"),
        )
        spread = Spread(costs.spread, load.seed)
        self._nodes = [self._node(spread) for _ in range(plan.decoders)]
        self._router = _router(plan.decoders)
        self._at = dict(zip(self._router.endpoints, self._nodes, strict=True))
        self._endpoints: dict[Answer, Endpoint] = {}
        self._busy_s = (0.0, 0.0, 0.0)  # of replicas, decoders, and slots that were held

    def run(self) -> Outcome:
        """Runs it to its end, when every answer has ended."""
        load, plan = self._load, self._plan
        scaler = self._autoscale()
        for answer in self.answers:
            arrive = partial(self._arrive, answer)
            self._clock.at(answer.arrival.moment, partial(self._way.request, answer, arrive))
        self._clock.at(load.seconds, self._look)
        self._clock.run()
        replicas = plan.replicas if scaler is None else scaler.replica_s / load.seconds
        gateways, fronts = self._cores_for("gateway"), self._cores_for("front")
        return outcome(
            self.answers,
            self.gaps,
            load,
            replicas=plan.replicas,
            decoders=plan.decoders,
            mean_replicas=replicas,
            replica_use=self._busy_s[0] / load.seconds / max(1e-9, replicas),
            decoder_use=self._busy_s[1] / load.seconds / plan.decoders,
            slot_use=self._busy_s[2] / load.seconds / plan.decoders / self._costs.decoder.slots,
            gateway_cores=gateways.cores,
            gateway_use=gateways.use,
            front_cores=fronts.cores,
            front_use=fronts.use,
            preemptions=sum(node.decoder.residency.preemption_count for node in self._nodes),
            events=self._clock.events,
        )

    def _autoscale(self) -> Autoscale | None:
        if self._plan.most_replicas is None:
            return None
        aims = Aims(fewest=self._plan.replicas, most=self._plan.most_replicas)
        scaler = Autoscale(self._clock, self._costs, self._encoders, aims)
        scaler.until(self._load.seconds)
        return scaler

    def _look(self) -> None:
        used = [node.decoder.used_s() for node in self._nodes]
        computed, held = (sum(one[part] for one in used) for part in (0, 1))
        self._busy_s = (self._encoders.busy_s, computed, held)

    def _cores_for(self, process: str) -> CoresFor:
        """What the processes of a kind, one to a core, took of their cores while requests came."""
        cost = self._costs.processors.get(process, Processor())
        answers = (answer.arrival for answer in self.answers if not answer.refused)
        seconds = sum(
            cost.seconds(patches=asked.patches, tokens=asked.output_tokens) for asked in answers
        )
        return cores_for(seconds / self._load.seconds)

    def _node(self, spread: Spread) -> Node:
        images, core = ImageQueue(self._costs), None
        if self._cores:
            core = self._cores.get("decoder") or Core(self._clock)
        decoder = Decoder(
            self._clock,
            self._costs,
            spread=spread,
            way=self._way,
            on_end=self._ended,
            core=core,
            other_work=partial(self._pass_of, images),
            slowed=self._step_beside,
        )
        return Node(decoder=decoder, images=images)

    def _step_beside(self) -> float:
        """How many times as long a step takes that begins now: all are on one processor's cores."""
        beside = self._costs.step_beside_pass
        return beside if beside != 1.0 and self._cores and self._encoders.compute else 1.0

    def _pass_of(self, images: ImageQueue) -> float | None:
        """The next pass of a whole node: what it takes; None where no image waits."""
        chosen = images.next()
        if not chosen:
            return None
        seconds = images.seconds(chosen)
        for image in chosen:
            self._clock.at(self._clock.now + seconds, image.done)
        return seconds

    # -- A request ---------------------------------------------------------------------------

    def _arrive(self, answer: Answer) -> None:
        endpoint = self._router.ranked(affinity=b"%d" % answer.arrival.conversation)[0]
        node = self._at[endpoint]
        if node.decoder.places_left == 0:
            answer.refused = True
            return
        endpoint.calls += 1
        self._endpoints[answer] = endpoint
        sequence, admission = node.decoder.submit(answer)
        if not admission.needed_spans:
            return
        give = partial(self._given, answer, partial(node.decoder.give_features, sequence))
        if self._plan.whole:
            self._encode_there(answer, node, give)
            return

        def refused() -> None:
            answer.refused = True
            node.decoder.cancel(sequence)
            self._ended(answer)

        def submit() -> None:
            sent = partial(self._way.features, answer, give)
            self._encoders.submit(answer.arrival.patches, sent, refused)

        self._way.image(answer, submit)

    def _encode_there(self, answer: Answer, node: Node, give: Callable[[], None]) -> None:
        """Has an image encoded by a whole node, where features need not travel."""
        patches = answer.arrival.patches

        def prepared() -> None:
            node.images.add(patches, self._clock.now, give)
            node.decoder.wake()

        self._clock.at(self._clock.now + self._costs.preprocess.seconds(patches), prepared)

    def _given(self, answer: Answer, give: Callable[[], None]) -> None:
        answer.encoded = self._clock.now
        give()

    def _ended(self, answer: Answer) -> None:
        self._endpoints.pop(answer).calls -= 1


def _router(count: int) -> Router:
    """A gateway's view of decoders that all serve."""
    addresses = [f"decoder-{number}:50052" for number in range(count)]
    router = Router("decoder", addresses, unavailable=Reason.DECODER_UNAVAILABLE)
    for endpoint in router.endpoints:
        endpoint.state = State.SERVING
    return router
