"""Batches for the second lesson: many short conversations about each sight.

Every batch has one kind of sight (a picture, two, three, a video, nothing) and one layout, so
that its prefix of visual placeholders is the same in all rows. See `lean.Batch`.
"""

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tests.demo_model.askers import (
    Ask,
    pair_asker,
    picture_asker,
    place_asker,
    triple_asker,
    video_asker,
)
from tests.demo_model.drawing import Finish
from tests.demo_model.gallery import Gallery, pair_grids, random_pair, random_triple
from tests.demo_model.labels import stack
from tests.demo_model.lean import MERGE, PATCH
from tests.demo_model.pictures import Grid, frame_for, random_grid
from tests.demo_model.questions import Turns, located
from tests.demo_model.scenes import Frame, compose, random_names, random_text
from tests.demo_model.talk import ask_talk
from tests.demo_model.tokenizer import SYSTEM_PROMPTS
from tests.demo_model.videos import random_clock, random_video, random_video_grid

LONGEST_LINE = 60  # tokens of one conversation after the prefix
SLOW_START = 900  # lectures without pixels, during which pictures grow to their size
ATTEMPTS = 12  # to add a turn to a conversation
NUMBERED_SHARE = 0.92  # of single pictures and videos that carry a number, as the template gives
KINDS = {"picture": 0.4, "place": 0.12, "pair": 0.16, "triple": 0.1, "video": 0.18, "talk": 0.04}
ROWS = {"picture": 28, "place": 28, "pair": 20, "triple": 16, "video": 20, "talk": 24}
LINES = {"picture": 5, "place": 3, "pair": 5, "triple": 5, "video": 4, "talk": 3}
COUNTS = (1, 2, 2, 3, 3, 3, 4, 5, 5, 6)  # of things in a picture
COUNTS_BESIDE_TEXT = (0, 1, 2, 3, 4)
# Weights of answers.
URGENCY = {
    "appear": 2.0, "spatial": 1.5, "color": 1.5, "compare": 2.0, "locate": 3.0, "sides": 3.0,
}  # fmt: skip
GridThw = tuple[int, int, int]
Shown = tuple[list[GridThw], list[Tensor], list[dict[str, Tensor]]]  # grids, pixels, labels


@dataclass(slots=True)
class Lines:
    """Tokens of conversations, and which of them are answers."""

    tokens: list[list[int]]
    answers: list[tuple[int, int, int, str]]  # line, first and last answer token, skill


@dataclass(slots=True)
class Lecture:
    """One batch: what is seen, what is asked, what should be answered."""

    kind: str
    rows: int
    grids: list[GridThw]  # `grid_thw` of each sight
    sights: list[Tensor]  # uint8 [B, H, W, 3] per picture, or one [B * T, 2, H, W, 3]; or none
    labels: list[dict[str, Tensor]]  # dense labels of each sight, [B, ...] or [B * T, ...]
    prefix: Tensor  # [P] tokens, the same for all rows
    suffix: Tensor  # [B * G, L]
    predictors: Tensor  # [A] flat positions of the suffix that predict an answer token
    targets: Tensor  # [A]
    weights: Tensor  # [A], so that long answers do not drown short ones
    spans: list[tuple[str, int, int]]  # skill and range in `targets` of each answer


class Classroom:
    """Makes lectures by number: the same seed and number give the same lecture."""

    def __init__(self, tokenizer_file: Path, seed: int | str, draws: bool = True) -> None:
        """`draws` tells whether lectures carry pixels beside the labels."""
        self.draws = draws
        self.space = 1.0  # how large pictures are, as a share
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.seed = seed
        self.encode = lru_cache(maxsize=20000)(self._encode)
        self.asked = self._encode("<|im_end|>\n<|im_start|>assistant\n")
        self.answered = self._encode("<|im_end|>")
        self.again = self._encode("\n<|im_start|>user\n")

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a classroom is made in the process that uses it")

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def lecture(self, index: int, rank: int, size: int) -> Lecture:
        """One member's share of the lecture of that number; all shares are of one kind."""
        self.space = min(1.0, 0.1 + index / SLOW_START) if not self.draws else 1.0
        kind = random.Random(f"lecture {self.seed} {index}").choices(
            list(KINDS), list(KINDS.values())
        )[0]
        rng = random.Random(f"lecture {self.seed} {index} {rank}")
        makers = {
            "picture": self.about_picture,
            "place": self.about_place,
            "pair": self.about_pair,
            "triple": self.about_triple,
            "video": self.about_video,
            "talk": self.about_nothing,
        }
        return makers[kind](rng, ROWS[kind] // size)

    def about_picture(self, rng: random.Random, rows: int) -> Lecture:
        """Questions about single pictures."""
        grid = self.shrunk(rng, random_grid(rng))
        lines, shown = Lines([], []), []
        for _ in range(rows):
            frame = frame_for(rng, grid)
            text = random_text(rng) if rng.random() < 0.35 else None
            counts = COUNTS_BESIDE_TEXT if text else COUNTS
            count = min(rng.choice(counts), grid[0] * grid[1] // 2)
            scene = compose(rng, frame, random_names(rng, count), text)
            shown.append(Gallery((scene,), (frame,), (Finish.random(rng),)))
            self.add_lines(lines, picture_asker(rng, scene), LINES["picture"])
        return self.about_galleries(rng, "picture", shown, lines)

    def about_place(self, rng: random.Random, rows: int) -> Lecture:
        """Where the only thing of a picture is."""
        grid = self.shrunk(rng, random_grid(rng))
        while max(grid) > 2 * min(grid):  # too narrow for things that may be located
            grid = self.shrunk(rng, random_grid(rng))
        lines, shown = Lines([], []), []
        for _ in range(rows):
            frame = frame_for(rng, grid)
            scene = compose(rng, frame, random_names(rng, 1))
            while not located(scene):
                scene = compose(rng, frame, random_names(rng, 1))
            shown.append(Gallery((scene,), (frame,), (Finish.random(rng),)))
            self.add_lines(lines, place_asker(rng, scene), LINES["place"])
        return self.about_galleries(rng, "place", shown, lines)

    def about_pair(self, rng: random.Random, rows: int) -> Lecture:
        """Questions about two pictures."""
        grids = tuple(self.shrunk(rng, grid) for grid in pair_grids(rng))
        lines, shown = Lines([], []), []
        for _ in range(rows):
            frame = frame_for(rng, grids[0])
            other = None if grids[0] == grids[1] else frame_for(rng, grids[1])
            shown.append(random_pair(rng, frame, other))
            self.add_lines(lines, pair_asker(rng, shown[-1], grids[0] == grids[1]), LINES["pair"])
        return self.about_galleries(rng, "pair", shown, lines)

    def about_triple(self, rng: random.Random, rows: int) -> Lecture:
        """Questions about three pictures."""
        grids = tuple(self.shrunk(rng, random_grid(rng)) for _ in range(3))
        lines, shown = Lines([], []), []
        for _ in range(rows):
            frames = (frame_for(rng, grids[0]), frame_for(rng, grids[1]), frame_for(rng, grids[2]))
            shown.append(random_triple(rng, frames))
            self.add_lines(lines, triple_asker(rng, shown[-1]), LINES["triple"])
        return self.about_galleries(rng, "triple", shown, lines)

    def about_galleries(
        self, rng: random.Random, kind: str, shown: list[Gallery], lines: Lines
    ) -> Lecture:
        """The lecture about pictures of which the first ones have one size, the second ones too."""
        labels = [
            stack(rows) for rows in zip(*(gallery.labels() for gallery in shown), strict=True)
        ]
        sights = []
        if self.draws:
            pixels = zip(*(gallery.seen() for gallery in shown), strict=True)
            sights = [torch.stack(pictures) for pictures in pixels]
        grids = [grid_of(1, frame) for frame in shown[0].frames]
        prefix = self.picture_prefix(rng, [cells_of(grid) for grid in grids])
        return self.finished(kind, (grids, sights, labels), prefix, lines)

    def about_video(self, rng: random.Random, rows: int) -> Lecture:
        """Questions about videos."""
        clock = random_clock(rng)
        grid = self.shrunk(rng, random_video_grid(rng, clock))
        lines, videos = Lines([], []), []
        for _ in range(rows):
            videos.append(random_video(rng, clock, grid))
            self.add_lines(lines, video_asker(rng, videos[-1]), LINES["video"])
        parts = [video.labels() for video in videos]
        labels = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        sights = [torch.cat([video.frames() for video in videos])] if self.draws else []
        prefix = self.video_prefix(rng, clock.stamps, grid[0] * grid[1])
        grids = [grid_of(len(clock.stamps), videos[0].frame)]
        return self.finished("video", (grids, sights, [labels]), prefix, lines)

    def shrunk(self, rng: random.Random, grid: Grid) -> Grid:
        """The grid, or a smaller one early in a lesson without pixels."""
        if self.space == 1:
            return grid
        share = self.space**0.5
        rows, columns = (max(2, round(side * share)) for side in grid)
        return rows, max(columns, 4) if rng.random() < 0.3 else columns  # four, for texts

    def about_nothing(self, rng: random.Random, rows: int) -> Lecture:
        """Talk without pictures."""
        lines = Lines([], [])
        for _ in range(rows):
            self.add_lines(lines, lambda: ask_talk(rng), LINES["talk"])
        return self.finished("talk", ([], [], []), self.opening(rng), lines)

    def opening(self, rng: random.Random) -> list[int]:
        """The start of a user turn, now and then after a system prompt."""
        system = ""
        if rng.random() < 0.15:
            system = f"<|im_start|>system\n{rng.choice(SYSTEM_PROMPTS)}<|im_end|>\n"
        return list(self._encode(system + "<|im_start|>user\n"))

    def picture_prefix(self, rng: random.Random, cells: list[int]) -> list[int]:
        """Placeholders of some pictures, nearly always numbered as the chat template does it."""
        tokens = self.opening(rng)
        numbered = len(cells) > 1 or rng.random() < NUMBERED_SHARE
        for number, count in enumerate(cells, start=1):
            name = f"Picture {number}: " if numbered else ""
            pads = "<|image_pad|>" * count
            tokens += self._encode(f"{name}<|vision_start|>{pads}<|vision_end|>")
        return tokens

    def video_prefix(self, rng: random.Random, stamps: list[float], cells: int) -> list[int]:
        """Placeholders of a video, in the form of transformers 5.23."""
        pads = f"<|vision_start|>{'<|video_pad|>' * cells}<|vision_end|>"
        inner = "".join(f"<{stamp:.1f} seconds>{pads}" for stamp in stamps)
        name = "Video 1: " if rng.random() < NUMBERED_SHARE else ""
        return self.opening(rng) + list(
            self._encode(f"{name}<|vision_start|>{inner}<|vision_end|>")
        )

    def add_lines(self, lines: Lines, ask: Ask, count: int) -> None:
        """Fills conversations with turns for as long as they fit."""
        for _ in range(count):
            tokens: list[int] = []
            said: set[tuple[str, str]] = set()
            for _ in range(ATTEMPTS):
                turns = ask()
                if turns is not None and not repeats(turns, said):
                    self.add_turns(lines, tokens, turns)
            lines.tokens.append(tokens)

    def add_turns(self, lines: Lines, tokens: list[int], turns: Turns) -> None:
        """Adds turns to the line that is being filled, all or none."""
        extended, answers = list(tokens), []
        for turn in turns:
            extended += self.again if extended else ()
            extended += self.encode(turn.question) + self.asked
            first = len(extended)
            extended += self.encode(turn.answer) + self.answered
            answers.append((len(lines.tokens), first, len(extended), turn.skill))
        if len(extended) <= LONGEST_LINE:
            tokens[:] = extended
            lines.answers += answers

    def finished(
        self,
        kind: str,
        shown: Shown,
        prefix: list[int],
        lines: Lines,
    ) -> Lecture:
        """Everything as tensors."""
        grids, sights, labels = shown
        length = max(len(tokens) for tokens in lines.tokens)
        padding = self._encode("<|endoftext|>")[0]
        suffix = torch.full((len(lines.tokens), length), padding)
        for row, tokens in zip(suffix, lines.tokens, strict=True):
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        predictors: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        spans = []
        for line, first, last, skill in lines.answers:
            spans.append((skill, len(targets), len(targets) + last - first))
            predictors += range(line * length + first - 1, line * length + last - 1)
            targets += lines.tokens[line][first:last]
            weights += [URGENCY.get(skill, 1.0) * (last - first) ** -0.5] * (last - first)
        return Lecture(
            kind=kind,
            rows=len(labels[0]["color"]) // grids[0][0] if labels else 1,
            grids=grids,
            sights=sights,
            labels=labels,
            prefix=torch.tensor(prefix),
            suffix=suffix,
            predictors=torch.tensor(predictors),
            targets=torch.tensor(targets),
            weights=torch.tensor(weights),
            spans=spans,
        )


def grid_of(length: int, frame: Frame) -> GridThw:
    """`grid_thw` of a picture or of a video of so many pairs of frames."""
    return length, frame.seen_height // PATCH, frame.seen_width // PATCH


def cells_of(grid: GridThw) -> int:
    """Merged tokens of a picture."""
    return grid[1] * grid[2] // MERGE**2


def repeats(turns: Turns, said: set[tuple[str, str]]) -> bool:
    """Whether an answer could be copied from an earlier turn; remembers the new ones."""
    facts = {(t.skill, t.answer) for t in turns if t.skill not in ("count", "yes_no")}
    repeated = bool(facts & said)
    said |= facts
    return repeated
