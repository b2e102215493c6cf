"""Measures a checkpoint on held-out questions, with transformers, fp32 and greedy.

    python -m tests.demo_model.evaluation CHECKPOINT [--count 120] [--skills read count]
    python -m tests.demo_model.evaluation http://127.0.0.1:8000/v1 --still [--against answers.json]

The second form asks a server instead. `--answers FILE` keeps the answers, and `--against FILE`
tells how many of them a second run repeats.

Prints a table, and one JSON line last. A box is right if it overlaps the true one by half
(intersection over union) and carries the right label; every other answer must be exact.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from tests.demo_model.held_out import SKILLS, Question, question
from tests.demo_model.oracle import make_transformers_importable
from tests.demo_model.served import Served

LONGEST_ANSWER = 48  # tokens
LEAST_OVERLAP = 0.5
BATCH = 12
MOVING = ("direction", "appear")  # skills whose questions show a video
Inputs = dict[str, Any]


class Respondent(Protocol):
    """Whoever answers questions."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answers to the last turns, after its own answers to the turns before."""


class Examinee:
    """A checkpoint, loaded with transformers as anyone would."""

    def __init__(self, checkpoint: Path) -> None:
        make_transformers_importable()
        from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.processor.tokenizer.padding_side = "left"
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32
        ).eval()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answers to the last turns, after its own answers to the turns before."""
        said: list[list[str]] = [[] for _ in questions]
        turns = max(len(q.turns) for q in questions)
        for turn in range(turns):
            asked = [i for i, q in enumerate(questions) if turn < len(q.turns)]
            inputs = self.inputs([questions[i] for i in asked], [said[i] for i in asked])
            for i, text in zip(asked, self.generate(inputs), strict=True):
                said[i].append(text)
        return [answers[-1] for answers in said]

    def inputs(self, questions: Sequence[Question], said: Sequence[Sequence[str]]) -> Inputs:
        """What the processor makes of some questions and the answers so far."""
        chats = [messages(q, answers) for q, answers in zip(questions, said, strict=True)]
        texts = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats
        ]
        pictures = [Image.fromarray(picture) for q in questions for picture in q.pictures]
        videos = [q for q in questions if q.video is not None]
        extra: Inputs = {}
        if videos:
            extra = {
                "videos": [video_frames(q) for q in videos],
                "video_metadata": [video_metadata(q) for q in videos],
                "do_sample_frames": False,
            }
        inputs: Inputs = self.processor(
            text=texts, images=pictures or None, padding=True, return_tensors="pt", **extra
        )
        return inputs

    @torch.inference_mode()
    def generate(self, inputs: Inputs) -> list[str]:
        """Greedy answers as text."""
        length = inputs["input_ids"].shape[1]
        tokens = self.model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        texts: list[str] = self.processor.batch_decode(
            tokens[:, length:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts


def messages(asked: Question, said: Sequence[str]) -> list[dict[str, Any]]:
    """A chat up to the next question."""
    content: list[dict[str, str]] = [{"type": "image"} for _ in asked.pictures]
    if asked.video is not None:
        content.append({"type": "video"})
    content.append({"type": "text", "text": asked.turns[0].question})
    chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
    for answer, turn in zip(said, asked.turns[1:], strict=False):
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        chat.append({"role": "user", "content": [{"type": "text", "text": turn.question}]})
    return chat


def video_frames(asked: Question) -> torch.Tensor:
    """The kept frames of a video, [T, 3, H, W]."""
    assert asked.video is not None
    return torch.from_numpy(np.ascontiguousarray(asked.video)).permute(0, 3, 1, 2)


def video_metadata(asked: Question) -> Any:
    """Rate and indices of the kept frames."""
    from transformers.video_utils import VideoMetadata

    assert asked.clock is not None
    indices = list(asked.clock.indices)
    return VideoMetadata(
        total_num_frames=indices[-1] + 1, fps=asked.clock.rate, frames_indices=indices
    )


def is_right(expected: str, given: str) -> bool:
    """Whether an answer counts; see the module's docstring."""
    if not expected.startswith("{"):
        return given.strip() == expected
    try:
        said = json.loads(given)
        box = [float(side) for side in said["bbox_2d"]]
        name = said["label"]
    except (ValueError, KeyError, TypeError):
        return False
    wanted = json.loads(expected)
    return (
        len(box) == 4
        and name == wanted["label"]
        and overlap(box, wanted["bbox_2d"]) >= LEAST_OVERLAP
    )


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared) if shared else 0.0


def examine(examinee: Respondent, skill: str, count: int) -> list[tuple[Question, str, bool]]:
    """Every question of a skill with the answer given and whether it was right."""
    results = []
    for start in range(0, count, BATCH):
        questions = [question(skill, n) for n in range(start, min(count, start + BATCH))]
        for asked, given in zip(questions, examinee.answer(questions), strict=True):
            results.append((asked, given, is_right(asked.turns[-1].answer, given)))
    return results


def examinee_of(subject: str) -> Respondent:
    """A checkpoint by its folder, or a server by its address."""
    if subject.startswith("http"):
        return Served(subject, LONGEST_ANSWER)
    return Examinee(Path(subject))


def compared(answers: dict[str, list[str]], file: Path) -> str:
    """How many answers are those of an earlier run, in words."""
    before: dict[str, list[str]] = json.loads(file.read_text())
    pairs = [
        (given, then)
        for skill, said in answers.items()
        for given, then in zip(said, before[skill], strict=False)
    ]
    equal = sum(given == then for given, then in pairs)
    return f"equal to {file.name}: {equal} of {len(pairs)}\n"


def main() -> None:
    """Prints the accuracy of every skill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", help="folder of a checkpoint, or address of a server")
    parser.add_argument("--count", type=int, default=120, help="questions per skill")
    parser.add_argument("--skills", nargs="+", default=SKILLS, choices=SKILLS)
    parser.add_argument("--still", action="store_true", help="leave the skills with videos out")
    parser.add_argument("--mistakes", action="store_true", help="print wrong answers")
    parser.add_argument("--answers", type=Path, help="where to keep the answers")
    parser.add_argument("--against", type=Path, help="answers kept by another run")
    arguments = parser.parse_args()
    examinee = examinee_of(arguments.subject)
    accuracy: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    write = sys.stdout.write
    for skill in tqdm([s for s in arguments.skills if not (arguments.still and s in MOVING)]):
        results = examine(examinee, skill, arguments.count)
        accuracy[skill] = sum(right for *_, right in results) / len(results)
        answers[skill] = [given for _, given, _ in results]
        write(f"{skill:10} {accuracy[skill]:7.1%}\n")
        for asked, given, right in results:
            if arguments.mistakes and not right:
                turn = asked.turns[-1]
                write(f"    {turn.question}  expected {turn.answer!r}, given {given!r}\n")
    if arguments.answers:
        arguments.answers.write_text(json.dumps(answers))
    if arguments.against:
        write(compared(answers, arguments.against))
    overall = sum(accuracy.values()) / len(accuracy)
    write(f"{'all':10} {overall:7.1%}\n")
    write(json.dumps({"all": overall, "questions": arguments.count} | accuracy) + "\n")


if __name__ == "__main__":
    main()
