"""The codes in which the tower reports what it sees, as the language model first meets them.

Every colour, shape, character and so on has a fixed direction; what a merged token tells is the
sum of its directions. The token embeddings of the same words start on the same directions, so a
language model begins with visual tokens that are words. The tower is taught to speak in these
codes (`sight.py`) while the language model is taught to understand them (`answering.py`); in the
last lesson they meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.demo_model.drawing import CHARACTERS, COLORS, SHAPES
from tests.demo_model.model import HIDDEN

SEED = 7
LOUDNESS = 0.28  # length of a code: about that of a token's embedding
# How much louder each DeepStack level enters the language model than the tower learns to tell it.
# The residual stream has a length of about 300 after the language model's first layer, and things
# grow to 3000 by its third: a code of LOUDNESS would be drowned.
DEEPSTACK_GAINS = (150.0, 150.0, 150.0)
DIGIT_SHARE = 0.5  # how much of the codes of sides is in the embedding of the digit that tells them
GRAIN = 0.1  # length of the noise that ideal features carry, over LOUDNESS
SIXTHS = 6
STEPS = 20  # of the lattice on which boxes are told
DEEPSTACK_LEVELS = 3
SIDES = ("left", "top", "right", "bottom")
DIRECTIONS = ("left", "right", "up", "down")
LONGEST_TEXT = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Classes of which a token tells at most one."""

    levels: tuple[int, ...]  # 0 for the merged tokens, then the DeepStack levels
    classes: int  # class 0 among them
    silent: bool  # whether class 0 stands for nothing and has no code


# What is told at level 0 alone, things are hardly found by: level 1 tells sides 150 times louder.
GROUPS: Mapping[str, Group] = {
    "color": Group((0, 1), 2 + len(COLORS), silent=False),  # nothing, the colours, text
    "shape": Group((0, 1), 1 + len(SHAPES), silent=True),
    "motion": Group((0,), 1 + len(DIRECTIONS), silent=True),
    **{side: Group((0, 1, 2), 1 + STEPS, silent=False) for side in SIDES},
    "letter": Group((2, 3), 1 + len(CHARACTERS), silent=True),
    "place": Group((2, 3), 1 + LONGEST_TEXT, silent=True),
    "novelty": Group((0, 1, 2), 2, silent=True),  # whether the thing comes in with this pair
    "across": Group((0, 1), 1 + SIXTHS, silent=True),  # which sixth of the width, from the left
    "down": Group((0, 1), 1 + SIXTHS, silent=True),  # which sixth of the height, from the top
}
TEXT = 1 + len(COLORS)  # the class of `color` that marks a token with a character


@lru_cache(maxsize=1)
def codebook() -> dict[str, Tensor]:
    """Codes by group, [classes, HIDDEN]; all of them are at right angles to each other."""
    count = sum(group.classes for group in GROUPS.values())
    noise = torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(SEED))
    rows = torch.linalg.qr(noise).Q[:count] * LOUDNESS
    tables = torch.split(rows, [group.classes for group in GROUPS.values()])
    book = {name: table.clone() for name, table in zip(GROUPS, tables, strict=True)}
    for name, group in GROUPS.items():
        if group.silent:
            book[name][0] = 0
    return book


def ideal(labels: Mapping[str, Tensor]) -> list[Tensor]:
    """What a perfect tower would give: merged tokens and DeepStack levels, [B, C, HIDDEN] each."""
    shape = labels["color"].shape
    levels = [torch.zeros(*shape, HIDDEN) for _ in range(1 + DEEPSTACK_LEVELS)]
    for name, group in GROUPS.items():
        table = torch.cat((codebook()[name], torch.zeros(1, HIDDEN)))  # unknown classes say nothing
        label = labels[name]
        code = F.embedding(torch.where(label < 0, group.classes, label), table)
        for level in group.levels:
            levels[level] = levels[level] + code
    return levels


def grainy(levels: list[Tensor]) -> list[Tensor]:
    """Ideal features with some noise, so that nothing is learned that noise would break."""
    return [x + torch.randn_like(x) * (LOUDNESS * GRAIN / HIDDEN**0.5) for x in levels]


def amplified(levels: list[Tensor]) -> list[Tensor]:
    """Merged tokens as they are, and the DeepStack levels as loud as they enter the model."""
    loud = (level * gain for level, gain in zip(levels[1:], DEEPSTACK_GAINS, strict=True))
    return [levels[0], *loud]


def softened(levels: list[Tensor]) -> list[Tensor]:
    """DeepStack levels as loud as the tower learned to tell them."""
    return [level / gain for level, gain in zip(levels, DEEPSTACK_GAINS, strict=True)]


def words_of_codes() -> dict[str, Tensor]:
    """Codes by the text of the tokens that start on them."""
    book = codebook()
    words = {}
    for names, table in ((COLORS, book["color"]), (SHAPES, book["shape"])):
        for index, name in enumerate(names, start=1):
            words[name] = words[f" {name}"] = table[index]
    for index, character in enumerate(CHARACTERS, start=1):
        words[character] = book["letter"][index]
    for side in SIDES:
        for step in range(0, 1 + STEPS, 2):  # the first digit of where a box ends
            digit = str(1000 * step // STEPS)[0]
            words[digit] = words[digit] + DIGIT_SHARE * book[side][step]
    return words
