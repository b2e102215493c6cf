"""What faults cost: counted, held against the undisturbed run, and written as a table."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tests.chaos.answers import Answer
from tests.chaos.scene import Phase
from tests.demo_model.phrasings import NO_PICTURE_ANSWER

HEADINGS = (
    "fault", "images", "texts", "failed or cut", "died with their gateway", "another answer",
    "without their image", "longest image s", "longest pause of a stream s", "whole again s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A row of the table; `whole_again_s` counts from when the fault was taken back."""

    fault: str
    images: int
    texts: int
    failed: int
    gateways_own: int
    other_answer: int
    without_image: int
    longest_image_s: float
    longest_pause_s: float
    whole_again_s: float | None  # None: never
    faulty: tuple[str, ...]  # what was wrong, in words, for the first few

    @property
    def is_clean(self) -> bool:
        """Whether every request got its answer."""
        return not (self.failed or self.other_answer or self.without_image)


def reference(answers: Sequence[Answer]) -> dict[str, str]:
    """The answer to each question of a run without faults.

    Raises:
        ValueError: one of them failed, or was answered in two ways.
    """
    known: dict[str, str] = {}
    for answer in answers:
        if not answer.is_whole:
            raise ValueError(f"{answer.name}: {answer.error}")
        if known.setdefault(answer.name, answer.text) != answer.text:
            raise ValueError(f"{answer.name}: {answer.text!r} and {known[answer.name]!r}")
    return known


def outcomes(
    phases: Sequence[Phase], answers: Sequence[Answer], known: Mapping[str, str]
) -> list[Outcome]:
    """A row for each phase, of the requests that ended in it: from its begin to the next one's.

    Of a phase after which nothing is whole, only those that ended before it was taken back.
    """
    nexts = [phase.began_s for phase in phases[1:]] + [math.inf]
    asked = [each for each in answers if not each.is_refused]
    rows = []
    for phase, next_s in zip(phases, nexts, strict=True):
        end_s = next_s if phase.whole_s is not None else phase.ended_s
        mine = [each for each in asked if phase.began_s <= each.ended_s < end_s]
        rows.append(_outcome(phase, mine, known))
    return rows


def _outcome(phase: Phase, mine: Sequence[Answer], known: Mapping[str, str]) -> Outcome:
    whole = [each for each in mine if each.is_whole]
    own = [each for each in mine if each.is_lost and each.gateway == phase.gateway]
    failed = [each for each in mine if not each.is_whole and each not in own]
    other = [each for each in whole if each.text != known[each.name]]
    images = [each for each in mine if each.kind == "image"]
    texts = [each for each in mine if each.kind == "text"]
    return Outcome(
        fault=phase.name,
        images=len(images),
        texts=len(texts),
        failed=len(failed),
        gateways_own=len(own),
        other_answer=len(other),
        without_image=sum(e.kind == "image" and NO_PICTURE_ANSWER in e.text for e in whole),
        longest_image_s=max((each.ended_s - each.began_s for each in images), default=0.0),
        longest_pause_s=max((each.pause_s for each in texts), default=0.0),
        whole_again_s=phase.whole_s and phase.whole_s - phase.ended_s,
        faulty=tuple(f"{each.name} at {each.gateway}: {each.error}" for each in failed[:3])
        + tuple(f"{e.name}: {e.text!r} instead of {known[e.name]!r}" for e in other[:3]),
    )


def table(rows: Sequence[Outcome]) -> str:
    """Markdown, and a line of JSON last."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    for row in rows:
        cells = [v for key, v in asdict(row).items() if key != "faulty"]
        shown = [_shown(cell) for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", json.dumps([asdict(row) for row in rows])]) + "\n"


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.1f}"
    return "never" if cell is None else str(cell)
