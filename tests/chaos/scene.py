"""A site under load, and waiting for what its client sees."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import cluster
from tests.chaos.answers import Load
from tests.chaos.questions import Question
from tests.chaos.site import KEY, OF_EACH_TIER, PORTS, Site
from tests.support.bundles import demo_bundle
from tests.support.waiting import wait_until

ANSWERS_TIMEOUT_S = 240.0  # for the answers of one fault, on a busy machine
WHOLE_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One fault as it was; times in seconds of the monotonic clock.

    Attributes:
        name: Of the fault.
        gateway: URL of the gateway whose requests it may cost; None: none.
        began_s: When it was inflicted.
        ended_s: When it was taken back.
        whole_s: When both gateways found every address serving after that; None: never.
    """

    name: str
    gateway: str | None
    began_s: float
    ended_s: float
    whole_s: float | None


@dataclass(frozen=True, slots=True)
class Scene:
    """What faults are given."""

    site: Site
    load: Load

    def wait_for_answers(self, count: int, *, since_s: float) -> None:
        """Returns when so many requests of each kind have begun since a time, and ended."""

        def enough() -> bool:
            later = (each for each in self.load.answers if each.began_s >= since_s)
            ended = Counter(each.kind for each in later if each.connection is None)
            return all(ended[kind] >= count for kind in ("image", "text"))

        self.load.wait_for(enough, what=f"{count} answers", timeout_s=ANSWERS_TIMEOUT_S)

    def wait_for_all(self, names: Iterable[str]) -> None:
        """Returns when each of these questions has been answered."""
        wanted = set(names)
        self.load.wait_for(
            lambda: wanted <= {answer.name for answer in self.load.answers},
            what="an answer to every question",
            timeout_s=ANSWERS_TIMEOUT_S,
        )

    def wait_until_whole(self) -> float:
        """Returns when each gateway has found, from now on, every address serving; the time."""
        whole_s = self.wait_until_serving(OF_EACH_TIER, self.site.gateways)
        if not self.site.ray or self._replicas() == OF_EACH_TIER:
            return whole_s
        wait_until(
            lambda: self._replicas() == OF_EACH_TIER,
            what="every replica",
            timeout_s=WHOLE_TIMEOUT_S,
            interval_s=0.5,
        )
        return time.monotonic()

    def _replicas(self) -> int:
        return len(cluster.running(self.site.vision_hosts, cluster.REPLICA))

    def wait_until_serving(self, count: int, gateways: Sequence[str]) -> float:
        """Returns when some gateways have found, from now on, so many addresses of each tier."""
        since_s = time.monotonic()
        found: dict[str, float] = {}

        def all_have() -> bool:
            for look in reversed(self.load.looks):
                if look.at_s < since_s:
                    break
                if all(look.serving(tier) == count for tier in PORTS):
                    found[look.gateway] = look.at_s
            return found.keys() >= set(gateways)

        self.load.wait_for(
            all_have, what=f"gateways to find {count} of each tier", timeout_s=WHOLE_TIMEOUT_S
        )
        return max(found[gateway] for gateway in gateways)


@contextmanager
def at_work(
    folder: Path,
    questions: Sequence[Question],
    *,
    at_once: Mapping[str, int],
    ray: bool,
    store: bool = False,
) -> Iterator[Scene]:
    """Everything at work, every question answered once, and nothing wrong yet.

    Args:
        folder: Takes the logs.
        questions: Asked again and again.
        at_once: Requests of each kind at the same time.
        ray: Whether the vision tier runs on Ray.
        store: Whether Ray's head keeps what it knows in Redis.
    """
    with Site(folder, demo_bundle("fp32"), ray=ray, store=store) as site:
        load = Load(
            site.client,
            gateways=site.gateways,
            authority=site.authority,
            key=KEY,
            questions=questions,
            at_once=at_once,
        )
        with load:
            scene = Scene(site, load)
            scene.wait_for_all(question.name for question in questions)
            yield scene
