"""Trains the demonstration model from nothing, in two lessons.

    python -m deploy.demo.training FOLDER

The first lesson teaches the tower to see, the second the whole model to answer. FOLDER keeps
states and logs; run the same command again after a kill and it goes on.
"""

import argparse
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from deploy.demo.answering import Answering
from deploy.demo.conversations import Classroom, Lecture
from deploy.demo.lean import see
from deploy.demo.lesson import Lesson, Metrics
from deploy.demo.model import HIDDEN, VISION_HIDDEN, new_model, new_tower
from deploy.demo.optimizer import Optimizers
from deploy.demo.sight import SightHeads, sight_batch
from deploy.demo.team import Member, run_team
from deploy.demo.tokenizer import special_ids, write_tokenizer

SEED = 1
SIGHT_RATE, ANSWER_RATE = 3e-3, 3e-3
TEAM_SIZE = 2
QUIET = 0.1
SIGHT_STEPS, SIGHT_DECAY_STEPS, SIGHT_BATCH = 1850, 350, 48
ANSWER_STEPS, DECAY_STEPS = 4200, 4140
COARSE_STEPS = 500  # at the end of the second lesson, when 4-bit weights are practised
PRECISION = torch.bfloat16


def sight_lesson(folder: Path, member: Member) -> Lesson:
    """The tower and its heads, on dense labels."""
    tower = new_tower(SEED)
    heads = SightHeads(VISION_HIDDEN, HIDDEN)

    def measure(
        step: int, batch: tuple[torch.Tensor, dict[str, torch.Tensor]]
    ) -> tuple[torch.Tensor, Metrics]:
        pixels, labels = batch
        return heads(see(tower, pixels, PRECISION), labels)  # type: ignore[no-any-return]

    return Lesson(
        name="sight",
        folder=folder,
        steps=SIGHT_STEPS,
        decay_steps=SIGHT_DECAY_STEPS,
        make_batch=partial(sight_batch, f"{SEED} {member.rank}", size=SIGHT_BATCH // member.size),
        measure=measure,
        modules={"tower": tower, "heads": heads},
        optimizers=Optimizers({"tower": tower, "heads": heads}, SIGHT_RATE),
        member=member,
    )


def make_lecture(tokenizer_file: Path, member: Member, index: int) -> Lecture:
    """A member's share of a lecture by number, in its drawing process."""
    return classroom(tokenizer_file).lecture(index, member.rank, member.size)


@lru_cache(maxsize=1)
def classroom(tokenizer_file: Path) -> Classroom:
    """The one classroom of the drawing process."""
    return Classroom(tokenizer_file, SEED)


def answer_lesson(folder: Path, member: Member) -> Lesson:
    """The language model, on questions, behind the tower that has learned to see."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = special_ids(tokenizer)
    model = new_model(tokenizer.get_vocab_size(), special, SEED)
    seen = torch.load(folder / "sight.pt", weights_only=True)["modules"]
    model.model.visual.load_state_dict(seen["tower"])
    quieten(model.model.visual)
    model.model.visual.requires_grad_(False)
    return Lesson(
        name="answers",
        folder=folder,
        steps=ANSWER_STEPS,
        decay_steps=DECAY_STEPS,
        make_batch=partial(make_lecture, folder / "tokenizer.json", member),
        measure=Answering(model, special, PRECISION, ANSWER_STEPS - COARSE_STEPS),
        modules={"model": model},
        optimizers=Optimizers({"model": model}, ANSWER_RATE),
        member=member,
    )


def quieten(tower: Any) -> None:
    """Scales what the mergers give down to the loudness of the language model's own layers.

    The dense labels have made it some thirty times louder, and what a layer adds to such a
    token (which picture it is of, which frame) would be lost on the layers after it.
    """
    with torch.no_grad():
        for merger in (tower.merger, *tower.deepstack_merger_list):
            merger.linear_fc2.weight.mul_(QUIET)
            merger.linear_fc2.bias.mul_(QUIET)


def train(folder: Path, member: Member) -> None:
    """Both lessons, as one member of the team."""
    sight_lesson(folder, member).run()
    answer_lesson(folder, member).run()


def main() -> None:
    """Trains, or goes on training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, SEED)
    run_team(TEAM_SIZE, folder / "team", partial(train, folder))


if __name__ == "__main__":
    main()
