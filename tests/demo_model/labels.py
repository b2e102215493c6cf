"""Dense labels: for every cell of a drawn picture, what lies there.

They cost nothing, since the drawer knows, and teach the tower to see before it is asked
anything. -100 marks what no loss is taken on.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tests.demo_model.codes import DIRECTIONS, SIDES, SIXTHS, STEPS, TEXT
from tests.demo_model.drawing import CHARACTERS, COLORS, SHAPES, Scene, box_of, label_geometry
from tests.demo_model.lean import merge_order
from tests.demo_model.scenes import CELL

IGNORED = -100
Labels = dict[str, NDArray[np.int64]]


def dense_labels(
    scene: Scene,
    width: int,
    height: int,
    motions: tuple[str | None, ...] = (),
    newcomer: int | None = None,
) -> Labels:
    """What a picture of the given size in pixels shows, cell by cell.

    Args:
        motions: where each thing is going, in the order of the scene's things.
        newcomer: the thing that is there for the first time.

    Returns:
        `shape`, `color`, `motion`, `novelty` [C]: of the thing whose middle the cell holds, 0 for
        none; `across`, `down` [C]: in which sixth of each axis that middle lies;
        `left`, `top`, `right`, `bottom` [C]: that thing's box on the lattice of `codes.STEPS`;
        `letter` [C]: the character whose middle the cell holds;
        `place` [C]: which character of the text that is, counted from one;
        `patch_shape`, `patch_color` [P], `patch_character` [P, 2]: what covers the middle of
        each patch (of its left and right half), in merge order, 0 for nothing.
    """
    rows, columns = height // CELL, width // CELL
    names = ("shape", "color", "motion", "novelty", "letter", "place", "across", "down")
    labels: Labels = {name: np.zeros(rows * columns, np.int64) for name in names}
    labels |= {side: np.full(rows * columns, IGNORED, np.int64) for side in SIDES}
    for index, thing in enumerate(scene.things):
        box = box_of(thing, scene.aspect)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        cell = cell_at(*middle, rows, columns)
        labels["across"][cell], labels["down"][cell] = sixth(middle[0]), sixth(middle[1])
        labels["shape"][cell] = 1 + SHAPES.index(thing.shape)
        labels["color"][cell] = 1 + COLORS.index(thing.color)
        motion = motions[index] if index < len(motions) else None
        labels["motion"][cell] = 0 if motion is None else 1 + DIRECTIONS.index(motion)
        labels["novelty"][cell] = int(index == newcomer)
        for side, value in zip(SIDES, box, strict=True):
            labels[side][cell] = lattice(value)
    if scene.label is not None:
        box, edges = label_geometry(scene.label, scene.aspect)
        for k, character in enumerate(scene.label.text):
            middle = (edges[k] + edges[k + 1]) / 2, (box[1] + box[3]) / 2
            cell = cell_at(*middle, rows, columns)
            labels["color"][cell] = TEXT
            labels["letter"][cell] = 1 + CHARACTERS.index(character)
            labels["place"][cell] = 1 + k
    return labels | patch_labels(scene, rows * 2, columns * 2)


def stack(labels: Sequence[Labels]) -> dict[str, torch.Tensor]:
    """One tensor per kind of label."""
    return {name: torch.from_numpy(np.stack([row[name] for row in labels])) for name in labels[0]}


def lattice(side: float) -> int:
    """A fraction of the canvas in steps of the lattice on which boxes are told."""
    return 2 * min(STEPS // 2, max(0, round(side * STEPS / 2)))


def sixth(place: float) -> int:
    """In which sixth of an axis a place lies, from one."""
    return 1 + min(SIXTHS - 1, max(0, int(place * SIXTHS)))


def cell_at(x: float, y: float, rows: int, columns: int) -> int:
    """Index of the cell over a point."""
    row = min(rows - 1, max(0, int(y * rows)))
    column = min(columns - 1, max(0, int(x * columns)))
    return row * columns + column


def patch_labels(scene: Scene, rows: int, columns: int) -> Labels:
    """What covers the middle of each patch; see `dense_labels`."""
    row, column = (axis.numpy() for axis in merge_order(rows, columns))
    y = (row + 0.5) / rows
    shape = np.zeros(rows * columns, np.int64)
    color = np.zeros(rows * columns, np.int64)
    character = np.zeros((rows * columns, 2), np.int64)
    for thing in scene.things:
        left, top, right, bottom = box_of(thing, scene.aspect)
        x = (column + 0.5) / columns
        covered = (x > left) & (x < right) & (y > top) & (y < bottom)
        shape[covered] = 1 + SHAPES.index(thing.shape)
        color[covered] = 1 + COLORS.index(thing.color)
    if scene.label is not None:
        (_, top, _, bottom), edges = label_geometry(scene.label, scene.aspect)
        margin = 0.25 / rows
        inside = (y > top - margin) & (y < bottom + margin)
        for half in (0, 1):
            x = (column + 0.25 + 0.5 * half) / columns
            for k, letter in enumerate(scene.label.text):
                covered = inside & (x >= edges[k]) & (x < edges[k + 1])
                character[covered, half] = 1 + CHARACTERS.index(letter)
    return {"patch_shape": shape, "patch_color": color, "patch_character": character}
