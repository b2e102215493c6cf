"""`tandem bench --costs`: what it writes is what the planner reads, and says what was measured."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from deploy.client import Conversation
from deploy.costs import measurement, questions
from deploy.costs.questions import STREAM_TOKENS, Timed
from deploy.terminal.screen import CommandError
from planner.costs import Costs
from protos.tandem.v1 import gateway_pb2, tensor_pb2

LIMITS = {
    "slots": 8,
    "waiting": 64,
    "kv_tokens": 8192,
    "max_context": 4096,
    "prefill_chunk": 256,
    "mixed_chunk": 256,
}


def prefill_s(tokens: int) -> float:
    return 0.02 * -(-tokens // 256) + 0.002 * tokens


def encode_s(patches: int) -> float:
    return 0.002 * patches + 1e-7 * patches**2


def patches_of(conversation: Conversation) -> int:
    images = [part.image for part in conversation.messages[0].content if part.image]
    if not images:
        return 0
    with Image.open(io.BytesIO(images[0])) as opened:
        return opened.width * opened.height // 256


def timed(client: Any, conversation: Conversation, tokens: int) -> Timed:
    """An answer of a machine whose costs are known; a word is a token."""
    patches = patches_of(conversation)
    prompt = sum(len(part.text.split()) for part in conversation.messages[0].content) + patches // 4
    first = 0.01 + prefill_s(prompt)
    if patches:
        first += encode_s(patches) + 0.005 + 0.003
    return Timed(
        began=0.0,
        arrivals=[first, first + 0.03],
        prompt_tokens=prompt,
        timings=gateway_pb2.ChatTimings(
            prefill_ms=1e3 * prefill_s(prompt),
            encode_ms=1e3 * encode_s(patches),
            preprocess_ms=5.0 if patches else 0.0,
        ),
    )


def together(client: Any, texts: Sequence[str], most_tokens: int) -> list[Timed]:
    step = 0.02 + 0.001 * len(texts) + 1e-5 * len(texts) * (len(texts[0].split()) - 16)
    arrivals = [index * step for index in range(STREAM_TOKENS)]
    tokens = len(texts[0].split())
    return [Timed(began=0.0, arrivals=arrivals, prompt_tokens=tokens) for _ in texts]


def prepare(request: gateway_pb2.PrepareRequest) -> gateway_pb2.PreparedPrompt:
    patches = patches_of(Conversation(messages=list(request.messages)))
    return gateway_pb2.PreparedPrompt(grid_thw=[tensor_pb2.GridTHW(t=1, h=1, w=patches)])


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A stack and a client whose answers take known times."""
    for module in (measurement, questions):
        monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(measurement, "together", together)
    monkeypatch.setattr(measurement, "_limits", lambda stack, flags: LIMITS)
    used = iter(range(10**6))
    monkeypatch.setattr(
        measurement, "processor_seconds", lambda stack: {"gateway": 0.05 * next(used)}
    )
    monkeypatch.setattr(measurement, "IDLE_S", 0.0)
    monkeypatch.setattr(measurement, "SIDES", ((64, 64), (128, 128), (256, 192)))
    ready = {"vision": SimpleNamespace(seconds=8.0), "decoder": SimpleNamespace(seconds=3.0)}
    return SimpleNamespace(ready=ready), SimpleNamespace(prepare=prepare)


def test_the_planner_reads_the_machine_that_was_measured(
    known_machine: tuple[Any, Any], tmp_path: Path
) -> None:
    path, flags = tmp_path / "costs.json", {"vision": ["--max-batch-patches=2048"]}
    measurement.write(path, Console(file=io.StringIO()), flags, *known_machine)
    read = Costs.open(path)
    assert read.steps.prompt.start_s == pytest.approx(0.02, rel=0.02)
    assert read.steps.prompt.linear_s == pytest.approx(0.002, rel=0.02)
    assert read.steps.decode_s(6) == pytest.approx(0.026)
    assert read.steps.token_s == pytest.approx(1e-5, rel=0.02)
    assert read.encode.seconds(3072) == pytest.approx(encode_s(3072), rel=0.01)
    assert read.preprocess.seconds(1000) == pytest.approx(0.005)
    assert read.transfer.seconds(1000) == pytest.approx(0.003)
    assert read.overhead_s == pytest.approx(0.01)
    assert read.decoder.slots == 8
    assert (read.max_batch_patches, read.max_queued_patches) == (2048, 65_536)
    assert read.cores == ()
    assert read.processors["gateway"].seconds(patches=0, tokens=2) > 0
    assert read.start_s == {"vision": 8.0, "decoder": 3.0}
    assert set(read.spread) == {1.0}
    assert json.loads(path.read_text())["decode"][-1]["sequences"] == 2  # of a longer context


def test_gaps_count_while_all_answers_decode() -> None:
    long = Timed(began=0.0, arrivals=[float(n) for n in range(20)])
    late = Timed(began=0.0, arrivals=[5.5 + n for n in range(8)])
    # From the late one's fifth token, at 9.5, to its last, at 12.5.
    assert len(list(measurement._gaps([long, late]))) == 2 + 3


def test_a_file_that_cannot_be_written_is_one_line(
    known_machine: tuple[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "none" / "costs.json"
    with pytest.raises(CommandError, match="No such file or directory"):
        measurement.write(path, Console(file=io.StringIO()), {}, *known_machine)
