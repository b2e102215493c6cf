"""What every path of the default INT4 bundle makes of trained weights and real questions.

Random tokens and random weights say little about answers; the demonstration model has learned
something. Each question is answered greedily by the float32 graph, and each path then says what it
would have said at every one of those tokens. The figures are printed; the bounds catch a broken
path.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.divergence import kl_divergence
from tests.demo_model.evaluation import messages
from tests.demo_model.held_out import question
from tests.support.bundles import DEMO_CHECKPOINT, demo_bundle
from tests.support.graphs import GraphInputs, GraphSession
from tests.support.oracle import Oracle
from tests.support.runners import decode, logits_of, open_runner, prefill

SKILLS = ("color", "shape", "count", "spatial", "yes_no", "describe")
QUESTIONS = 5  # of each skill
TOKENS = 12
CONTEXT = 704


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question and what the float32 graph answered."""

    prompt: GraphInputs
    tokens: list[GraphInputs]  # the answer's, as inputs of the next step, without the last
    logits: np.ndarray  # [answer tokens, vocab]


@pytest.fixture(scope="module")
def bundles() -> tuple[Path, Path]:
    """The demonstration model in float32 and as exported by default."""
    return demo_bundle("fp32"), demo_bundle("int4")


@pytest.fixture(scope="module")
def answers(bundles: tuple[Path, Path]) -> list[Answer]:
    reference, graph = Oracle(DEMO_CHECKPOINT), GraphSession(bundles[0])
    numbered = [(skill, number) for skill in SKILLS for number in range(QUESTIONS)]
    return [answer(reference, graph, skill, number) for skill, number in numbered]


def answer(reference: Oracle, graph: GraphSession, skill: str, number: int) -> Answer:
    asked = question(skill, number)
    pictures = [Image.fromarray(picture) for picture in asked.pictures]
    prepared = reference.prepare(messages(asked, []), pictures)
    graph.reset()
    prompt = graph.inputs(reference, prepared)
    length = len(prompt.embeds)
    rows, tokens = [graph.run(prompt, [length - 1])[0]], []
    for step in range(TOKENS - 1):
        token = int(rows[-1].argmax())
        if token in graph.manifest.special_tokens.eos:
            break
        tokens.append(one_token(graph, token, length + step + prepared.delta))
        rows.append(graph.run(tokens[-1], [0])[0])
    return Answer(prompt=prompt, tokens=tokens, logits=np.stack(rows))


def one_token(graph: GraphSession, token: int, position: int) -> GraphInputs:
    nothing = np.zeros((1, graph.manifest.text.hidden_size), np.float32)
    return GraphInputs(
        embeds=graph.table[[token]],
        position_ids=np.full((3, 1), position, np.int64),
        deepstack=(nothing,) * graph.manifest.deepstack_level_count,
    )


def joined(parts: list[GraphInputs]) -> GraphInputs:
    return GraphInputs(
        embeds=np.concatenate([part.embeds for part in parts]),
        position_ids=np.concatenate([part.position_ids for part in parts], axis=1),
        deepstack=tuple(
            np.concatenate(levels)
            for levels in zip(*(part.deepstack for part in parts), strict=True)
        ),
    )


class Paths:
    """The ways the decoder runs a bundle's graph, each giving an answer's logits."""

    def __init__(self, bundle: Path, kernels: str, kv_dtype: str) -> None:
        self.runner, _ = open_runner(
            bundle, slots=2, context=CONTEXT, kernels=kernels, kv_dtype=kv_dtype
        )

    def prompt(self, given: Answer) -> np.ndarray:
        """Question and answer in one run."""
        rows = len(given.prompt.embeds) - 1 + np.arange(len(given.logits))
        whole = prefill(1, 0, joined([given.prompt, *given.tokens]), rows)
        (logits,) = logits_of(self.runner, whole)
        return logits

    def rows(self, given: Answer) -> np.ndarray:
        """The answer token by token."""
        length = len(given.prompt.embeds)
        rows = logits_of(self.runner, prefill(0, 0, given.prompt, np.array([length - 1])))
        for past, token in enumerate(given.tokens, start=length):
            rows += logits_of(self.runner, decode(past, token))
        return np.concatenate(rows)


@pytest.mark.parametrize(
    ("kernels", "kv_dtype"),
    [("onnxruntime", "float32"), ("tandem", "float32"), ("tandem", "float16")],
)
def test_every_path_answers_nearly_as_the_float32_graph(
    bundles: tuple[Path, Path],
    answers: list[Answer],
    kernels: str,
    kv_dtype: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = Paths(bundles[1], kernels, kv_dtype)
    exact = np.concatenate([given.logits for given in answers])
    lines = [f"{len(answers)} held-out questions, {len(exact)} answer tokens:"]
    for name, run in (("prompt", paths.prompt), ("rows", paths.rows)):
        found = np.concatenate([run(given) for given in answers])
        agreement = float((exact.argmax(-1) == found.argmax(-1)).mean())
        divergence = float(kl_divergence(exact, found).mean())
        label = f"{kernels} {kv_dtype} {name}"
        lines.append(f"  {label:<28} top-1 {agreement:.3f}, KL divergence {divergence:.5f}")
        assert agreement > 0.9
        assert divergence < 0.05
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201
