"""Trains the demonstration model from nothing, in three lessons.

    python -m tests.demo_model.training FOLDER

The first teaches the tower to see and to tell it in fixed codes; the second, at the same time in
a process of its own, teaches the language model to answer from those codes. The third puts the
two together and trains the whole. FOLDER keeps states and logs; run the same command again after
a kill and it goes on.
"""

import argparse
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tests.demo_model.answering import Answering
from tests.demo_model.codes import DEEPSTACK_GAINS, words_of_codes
from tests.demo_model.conversations import Classroom, Lecture
from tests.demo_model.lean import see
from tests.demo_model.lesson import Lesson, Metrics
from tests.demo_model.model import (
    VISION_HIDDEN,
    align_embeddings,
    new_model,
    new_tower,
    prepare_attention,
)
from tests.demo_model.optimizer import Optimizers
from tests.demo_model.sight import SightHeads, sight_batch
from tests.demo_model.team import ALONE, Member, run_team
from tests.demo_model.tokenizer import special_ids, write_tokenizer

SEED = 1
SIGHT_RATE, WORD_RATE, ANSWER_RATE = 3e-3, 1.5e-3, 8e-4
TEAM_SIZE = 2
SIGHT_STEPS, SIGHT_DECAY_STEPS, SIGHT_BATCH = 5200, 800, 32
WORD_STEPS, WORD_DECAY_STEPS = 5000, 500
ANSWER_STEPS, ANSWER_DECAY_STEPS = 2800, 1300
COARSE_STEPS = 120  # at the end of the last lesson, when 4-bit weights are practised
PRECISION = torch.bfloat16


def sight_lesson(folder: Path) -> Lesson:
    """The tower and its heads, on dense labels."""
    tower = new_tower(SEED)
    heads = SightHeads(VISION_HIDDEN)

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
        make_batch=partial(sight_batch, str(SEED), size=SIGHT_BATCH),
        measure=measure,
        modules={"tower": tower, "heads": heads},
        optimizers=Optimizers({"tower": tower, "heads": heads}, SIGHT_RATE),
        member=ALONE,
    )


def make_lecture(tokenizer_file: Path, draws: bool, member: Member, index: int) -> Lecture:
    """A member's share of a lecture by number, in its drawing process."""
    return classroom(tokenizer_file, draws).lecture(index, member.rank, TEAM_SIZE)


@lru_cache(maxsize=1)
def classroom(tokenizer_file: Path, draws: bool) -> Classroom:
    """The one classroom of a drawing process."""
    return Classroom(tokenizer_file, SEED if draws else f"{SEED} words", draws)


def word_lesson(folder: Path) -> Lesson:
    """The language model, on questions about ideal features."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = special_ids(tokenizer)
    model = new_model(tokenizer.get_vocab_size(), special, SEED)
    align_embeddings(model, rows_of_codes(tokenizer))
    prepare_attention(model)
    model.model.visual.requires_grad_(False)
    return Lesson(
        name="words",
        folder=folder,
        steps=WORD_STEPS,
        decay_steps=WORD_DECAY_STEPS,
        make_batch=partial(make_lecture, folder / "tokenizer.json", False, ALONE),
        measure=Answering(model, special, PRECISION),
        modules={"model": model},
        optimizers=Optimizers({"model": model}, WORD_RATE),
        member=ALONE,
    )


def answer_lesson(folder: Path, member: Member) -> Lesson:
    """The whole model, on questions about pictures, starting from the other two lessons."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = special_ids(tokenizer)
    model = new_model(tokenizer.get_vocab_size(), special, SEED)
    heads = SightHeads(VISION_HIDDEN)
    read = torch.load(folder / "words.pt", weights_only=True)["modules"]
    seen = torch.load(folder / "sight.pt", weights_only=True)["modules"]
    model.load_state_dict(read["model"])
    model.model.visual.load_state_dict(seen["tower"])
    heads.load_state_dict(seen["heads"])
    amplify(model.model.visual)
    return Lesson(
        name="answers",
        folder=folder,
        steps=ANSWER_STEPS,
        decay_steps=ANSWER_DECAY_STEPS,
        make_batch=partial(make_lecture, folder / "tokenizer.json", True, member),
        measure=Answering(model, special, PRECISION, heads, ANSWER_STEPS - COARSE_STEPS),
        modules={"model": model, "heads": heads},
        optimizers=Optimizers({"model": model, "heads": heads}, ANSWER_RATE),
        member=member,
    )


def amplify(tower: Any) -> None:
    """Makes a tower's DeepStack levels as loud as the language model expects them."""
    with torch.no_grad():
        for merger, gain in zip(tower.deepstack_merger_list, DEEPSTACK_GAINS, strict=True):
            merger.linear_fc2.weight.mul_(gain)
            merger.linear_fc2.bias.mul_(gain)


def rows_of_codes(tokenizer: Tokenizer) -> dict[int, torch.Tensor]:
    """Codes by the token that starts on them."""
    rows = {}
    for word, code in words_of_codes().items():
        tokens = tokenizer.encode(word, add_special_tokens=False).ids
        if len(tokens) == 1:
            rows[tokens[0]] = code
    return rows


def train(folder: Path, member: Member) -> None:
    """All lessons, as one member of the team."""
    lesson = sight_lesson if member.leads else word_lesson
    lesson(folder).run()
    member.wait()
    answer_lesson(folder, member).run()


def main() -> None:
    """Trains, or goes on training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").exists():
        write_tokenizer(folder, SEED)
    run_team(TEAM_SIZE, folder / "team", partial(train, folder))


if __name__ == "__main__":
    main()
