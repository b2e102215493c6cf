"""Dense labels: for every cell of a drawn picture, what lies there.

They cost nothing, since the drawer knows, and teach the tower to see before it is asked
anything. -100 marks what no loss is taken on.
"""

import numpy as np
from numpy.typing import NDArray

from deploy.demo.drawing import CHARACTERS, COLORS, SHAPES, Scene, box_of, label_geometry
from deploy.demo.lean import merge_order
from deploy.demo.scenes import CELL

IGNORED = -100
LONGEST_TEXT = 5
LETTERS = 2  # of one text that a cell can hold
Labels = dict[str, NDArray[np.int64]]


def dense_labels(scene: Scene, width: int, height: int) -> Labels:
    """What a picture of the given size in pixels shows, cell by cell.

    Returns:
        `shape`, `color` [C]: of the thing whose centre the cell holds, 0 for none;
        `box` [C, 8]: first and second digit of that thing's four sides in hundredths;
        `letters` [C, 2]: the characters whose centres the cell holds, from left to right;
        `places` [C, 2]: which characters of the text these are, counted from one;
        `patch_shape`, `patch_color` [P], `patch_character` [P, 2]: what covers the middle of
        each patch (of its left and right half), in merge order, 0 for nothing.
    """
    rows, columns = height // CELL, width // CELL
    cells = rows * columns
    labels: Labels = {
        "shape": np.zeros(cells, np.int64),
        "color": np.zeros(cells, np.int64),
        "box": np.full((cells, 8), IGNORED, np.int64),
        "letters": np.zeros((cells, LETTERS), np.int64),
        "places": np.zeros((cells, LETTERS), np.int64),
    }
    for thing in scene.things:
        box = box_of(thing, scene.aspect)
        middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        cell = cell_at(middle_x, middle_y, rows, columns)
        labels["shape"][cell] = 1 + SHAPES.index(thing.shape)
        labels["color"][cell] = 1 + COLORS.index(thing.color)
        labels["box"][cell] = [digit for side in box for digit in divmod(hundredths(side), 10)]
    if scene.label is not None:
        box, edges = label_geometry(scene.label, scene.aspect)
        middle_y = (box[1] + box[3]) / 2
        for k, character in enumerate(scene.label.text):
            cell = cell_at((edges[k] + edges[k + 1]) / 2, middle_y, rows, columns)
            slot = np.count_nonzero(labels["places"][cell])
            if slot < LETTERS:
                labels["letters"][cell, slot] = 1 + CHARACTERS.index(character)
                labels["places"][cell, slot] = 1 + k
    return labels | patch_labels(scene, rows * 2, columns * 2)


def hundredths(side: float) -> int:
    """A fraction of the canvas in hundredths, 0 to 100."""
    return min(100, max(0, round(side * 100)))


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
