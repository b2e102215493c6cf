"""What the second question about an image costs, through all three real services.

    python -m tests.bench.follow_up BUNDLE [--threads N] [--runs N]

An image of 1024 tokens (1024x1024) that no cache has seen and a question about it; then the next
question of the same conversation; then another conversation's question about the same image.
Times to the first token are the client's, from sending the request to the first token that
arrives; the number of vision calls comes from the vision tier's log. The ceiling is the time of a
text question of the same length of new text: no encoding, no prefill of the image.

Not measured: images that were evicted. The last line of standard output is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from deploy.client import ChatClient, Conversation
from deploy.commands.bench import PATIENCE, image
from deploy.commands.running import running_stack, stop_signals
from deploy.commands.serve import tier_flags
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings

SIDE = 1024  # pixels: 32 x 32 merged patches, 1024 tokens
TOKENS = 2
GOAL = 0.05
# Said for the model: the words of random weights do not come back as the tokens they were.
ANSWER = "A room."
QUESTIONS = ("What is in the image?", "And which colours does it have?", "Where is it bright?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question: seconds to its first token, prompt tokens, vision calls."""

    first_token_s: float
    prompt_tokens: int
    vision_calls: int


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The second question about an image.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    console = Console(stderr=True)
    flags = tier_flags([], threads=arguments.threads)
    patient = {tier: (*given, *flags.get(tier, ())) for tier, given in PATIENCE.items()}
    with tempfile.TemporaryDirectory() as folder, stop_signals():
        settings = StackSettings(
            bundle=arguments.bundle, ports=ANY_FREE, flags=patient, log_dir=Path(folder)
        )
        with (
            running_stack(console, settings) as stack,
            ChatClient(stack.addresses["gateway"]) as client,
        ):
            talk = Talk(client, stack, Path(folder) / "vision.log")
            talk.ask(Conversation(), QUESTIONS[0], image(256, 256, 0))  # warms up
            runs = [
                talk.three_questions(seed)
                for seed in track(range(1, arguments.runs + 1), "images", console=console)
            ]
    found = report(runs)
    found |= {"most_other_cores_in_use": others, **surroundings()}
    show(found)
    print(json.dumps(found, sort_keys=True))
    return 0


class Talk:
    """Asks, and watches the vision tier's log."""

    def __init__(self, client: ChatClient, stack: LocalStack, vision_log: Path) -> None:
        self._client = client
        self._stack = stack
        self._vision_log = vision_log

    def three_questions(self, seed: int) -> tuple[Asked, Asked, Asked]:
        """The first question, the follow-up, and another conversation's about the same image."""
        seen = image(SIDE, SIDE, seed)
        conversation = Conversation()
        first = self.ask(conversation, QUESTIONS[0], seen)
        conversation.answer(ANSWER)
        second = self.ask(conversation, QUESTIONS[1])
        other = self.ask(Conversation(), QUESTIONS[2], seen)
        return first, second, other

    def ask(self, conversation: Conversation, question: str, seen: bytes | None = None) -> Asked:
        """Asks one question greedily."""
        conversation.ask(question, [] if seen is None else [seen])
        request = gateway_pb2.ChatRequest(
            messages=conversation.messages,
            sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
            stop_conditions=decoder_pb2.StopConditions(max_tokens=TOKENS, ignore_eos=True),
        )
        calls = self._vision_calls()
        began, first, prompt_tokens = time.perf_counter(), 0.0, 0
        for chunk in self._client.complete(request):
            if not first and chunk.token_ids:
                first = time.perf_counter() - began
            if chunk.HasField("completion"):
                prompt_tokens = chunk.completion.prompt_tokens
        return Asked(
            first_token_s=first,
            prompt_tokens=prompt_tokens,
            vision_calls=self._vision_calls() - calls,
        )

    def _vision_calls(self) -> int:
        return self._vision_log.read_text().count("encode request_id=")


def report(runs: list[tuple[Asked, Asked, Asked]]) -> dict[str, object]:
    """Ratios of pairs, then what they are made of."""

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 4)

    return {
        "ratio": median([second.first_token_s / first.first_token_s for first, second, _ in runs]),
        "ratio_other_talk": median(
            [other.first_token_s / first.first_token_s for first, _, other in runs]
        ),
        "goal": GOAL,
        "first_s": median([run[0].first_token_s for run in runs]),
        "second_s": median([run[1].first_token_s for run in runs]),
        "other_talk_s": median([run[2].first_token_s for run in runs]),
        "vision_calls": [[asked.vision_calls for asked in run] for run in runs],
        "prompt_tokens": [asked.prompt_tokens for asked in runs[-1]],
    }


def show(found: dict[str, object]) -> None:
    """Prints the ratio first, then the row of results/follow_up.md."""
    print(
        f"second question {found['ratio']:.1%} of the first's time to first token"
        f" (goal {GOAL:.0%}): {found['second_s']} against {found['first_s']} s;"
        f" another conversation {found['ratio_other_talk']:.1%};"
        f" vision calls by question {found['vision_calls']}"
    )
    names = ("date", "commit", "ratio", "first_s", "second_s", "other_talk_s", "vision_calls")
    print(f"| {' | '.join(str(found[name]) for name in names)} |")


if __name__ == "__main__":
    sys.exit(main())
