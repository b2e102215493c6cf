"""`make chaos`: every fault, with Ray, under at least 1,000 requests of each kind.

Prints a table, and one JSON line last; exit code 1 where a request did not get its answer.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import cluster
from tests.chaos.faults import (
    HEAD,
    HEAD_KEPT,
    HOSTS,
    LINKS,
    RAY,
    ROLLING,
    SERVICES,
    Fault,
    endure,
)
from tests.chaos.outcomes import Outcome, outcomes, reference, table
from tests.chaos.questions import image_questions, text_questions
from tests.chaos.scene import Phase, at_work

AT_ONCE = {"image": 3, "text": 3}


def run(
    folder: Path, faults: Sequence[Fault], *, ray: bool, answers: int, store: bool = False
) -> list[Outcome]:
    """Lives through faults in turn.

    Args:
        folder: Takes the logs.
        faults: In this order.
        ray: Whether the vision tier runs on Ray.
        answers: Requests of each kind during each fault, at least.
        store: Whether Ray's head keeps what it knows in Redis.
    """
    questions = [*image_questions(), *text_questions()]
    phases: list[Phase] = []
    with at_work(folder, questions, at_once=AT_ONCE, ray=ray, store=store) as scene:
        known = reference(scene.load.answers)
        for fault in faults:
            phases.append(endure(scene, fault, answers=answers))
            sys.stderr.write(f"{outcomes(phases, scene.load.answers, known)[-1]}\n")
    return outcomes(phases, scene.load.answers, known)


def main() -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--only", default="", help="faults whose name a regular expression finds")
    arguments = parser.parse_args()
    ray = not arguments.without_ray
    plans = [((*SERVICES, *HOSTS, *LINKS, *ROLLING, *((*RAY, *HEAD) if ray else ())), False)]
    if ray and cluster.redis_server() is not None:
        plans.append((HEAD_KEPT, True))
    rows: list[Outcome] = []
    for plan, store in plans:
        faults = [fault for fault in plan if re.search(arguments.only, fault.name)]
        if faults:
            folder = Path(tempfile.mkdtemp(prefix="tandem-chaos-"))
            rows += run(folder, faults, ray=ray, answers=arguments.answers, store=store)
    sys.stdout.write(table(rows))
    return int(not all(row.is_clean for row in rows))


if __name__ == "__main__":
    sys.exit(main())
