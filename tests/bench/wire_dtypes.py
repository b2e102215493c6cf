"""What the form that features travel in changes: answers and logits of the demonstration model.

    python -m tests.bench.wire_dtypes [--count N] [--skills NAME ...]

transformers computes everything, in float32; its tower's output is sent through the wire's own
encoding and decoding in between. float32's greedy answers to held-out questions are read by every
form (teacher forced), whose logits are compared with float32's: share of tokens whose likeliest
stays, KL divergence, largest difference. Where one does not stay, the form answers by itself.

Not measured: what quantized decoders add to it. The last line of standard output is one JSON
object.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from protos.wire import features
from tests.demo_model.evaluation import LONGEST_ANSWER, MOVING, Examinee, is_right
from tests.demo_model.held_out import SKILLS, Question, question

CHECKPOINT = Path(__file__).parents[2] / "deploy" / "demo" / "checkpoint"
STILL = tuple(skill for skill in SKILLS if skill not in MOVING)
BATCH = 12


def sent(level: torch.Tensor, form: str) -> torch.Tensor:
    """One level, [N, H], as the decoder gets it."""
    chunk = features.to_proto(level.numpy(), level=0, row_offset=0, form=form)
    rows = features.values_from_proto(chunk, field="chunk", hidden_size=level.shape[1])
    return torch.from_numpy(rows.copy())


@contextmanager
def over_the_wire(examinee: Examinee, form: str) -> Iterator[None]:
    """Sends what the tower gives, every level of it, in a form."""
    tower = examinee.model.model.visual
    original = tower.forward

    def forward(*arguments: Any, **settings: Any) -> Any:
        output = original(*arguments, **settings)
        output.pooler_output = sent(output.pooler_output, form)
        output.deepstack_features = [sent(level, form) for level in output.deepstack_features]
        return output

    tower.forward = forward
    try:
        yield
    finally:
        tower.forward = original


@torch.inference_mode()
def logits_of(examinee: Examinee, inputs: dict[str, Any], answers: torch.Tensor) -> torch.Tensor:
    """Logits that each token of the answers, [B, A], is taken from: [B, A, vocab]."""
    zeros = torch.zeros_like(answers)
    longer = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], answers], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], zeros + 1], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], zeros], dim=1),
    }
    kept = answers.shape[1] + 1
    found: torch.Tensor = examinee.model(**longer, logits_to_keep=kept).logits[:, :-1]
    return found


class Tally:
    """One form's sums over all questions."""

    def __init__(self) -> None:
        self.right = self.same_answers = self.questions = self.tokens = self.same_tokens = 0
        self.divergence = self.largest = 0.0

    def answered(
        self, asked: Sequence[Question], given: Sequence[str], base: Sequence[str]
    ) -> None:
        """Counts answers."""
        for one, text, wanted in zip(asked, given, base, strict=True):
            self.questions += 1
            self.right += is_right(one.turns[-1].answer, text)
            self.same_answers += text == wanted

    def read(self, logits: torch.Tensor, base: torch.Tensor, counted: torch.Tensor) -> None:
        """Compares logits [B, A, vocab] where `counted`, [B, A], is true."""
        ours, theirs = logits[counted].double(), base[counted].double()
        self.tokens += len(ours)
        self.same_tokens += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        self.largest = max(self.largest, float((ours - theirs).abs().max()))
        ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
        self.divergence += float((theirs.exp() * (theirs - ours)).sum())

    def shown(self) -> dict[str, float]:
        """The figures."""
        return {
            "right": self.right / self.questions,
            "same_answers": self.same_answers / self.questions,
            "same_tokens": self.same_tokens / self.tokens,
            "kl": self.divergence / self.tokens,
            "largest_logit_difference": self.largest,
            "questions": self.questions,
            "tokens": self.tokens,
        }


def measure(skills: Sequence[str], count: int) -> dict[str, dict[str, float]]:
    """The figures of every form."""
    examinee = Examinee(CHECKPOINT)
    tallies = {form: Tally() for form in features.FORMS}
    batches = [
        [question(skill, number) for number in range(start, min(count, start + BATCH))]
        for skill in skills
        for start in range(0, count, BATCH)
    ]
    for asked in track(batches, "questions", console=Console(stderr=True)):
        said = [[turn.answer for turn in one.turns[:-1]] for one in asked]
        for group in _of_equal_turns(asked, said):
            _compare(examinee, *group, tallies)
    return {form: tally.shown() for form, tally in tallies.items()}


def _of_equal_turns(
    asked: Sequence[Question], said: Sequence[Sequence[str]]
) -> Iterator[tuple[list[Question], list[Sequence[str]]]]:
    for turns in sorted({len(one.turns) for one in asked}):
        chosen = [index for index, one in enumerate(asked) if len(one.turns) == turns]
        yield [asked[index] for index in chosen], [said[index] for index in chosen]


def _compare(
    examinee: Examinee,
    asked: Sequence[Question],
    said: Sequence[Sequence[str]],
    tallies: dict[str, Tally],
) -> None:
    inputs = dict(examinee.inputs(asked, said))
    tokens, texts = _answers(examinee, inputs)
    counted = tokens != examinee.model.generation_config.pad_token_id
    base = None
    for form, tally in tallies.items():
        with over_the_wire(examinee, form):
            logits = logits_of(examinee, inputs, tokens)
            base = logits if base is None else base  # float32 comes first
            # Where the likeliest token is the answer's everywhere, greedy decoding takes the same.
            is_same = (logits.argmax(-1) == tokens)[counted].all()
            given = texts if is_same else _answers(examinee, inputs)[1]
        tally.answered(asked, given, texts)
        tally.read(logits, base, counted)


@torch.inference_mode()
def _answers(examinee: Examinee, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[str]]:
    """Greedy answers: tokens [B, A], and texts."""
    length = inputs["input_ids"].shape[1]
    made = examinee.model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
    texts = examinee.processor.batch_decode(
        made[:, length:], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return made[:, length:], texts


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The forms of the wire and the model's answers.")
    parser.add_argument("--count", type=int, default=120, help="questions per skill")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--skills", nargs="+", choices=STILL, default=list(STILL))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.skills, arguments.count)
    for form, figures in found.items():
        cells = [
            f"{figures['right']:.2%}",
            f"{figures['same_answers']:.2%}",
            f"{figures['same_tokens']:.2%}",
            f"{figures['kl']:.2e}",
            f"{figures['largest_logit_difference']:.3f}",
        ]
        print(f"| {form} | {features.BYTES[form]} | {' | '.join(cells)} |")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
