"""`tandem verify`: a bundle's files, its services, and its agreement with transformers."""

import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from deploy.agreement import Agreement, compare
from deploy.client import ChatClient, Conversation
from deploy.digests import check_digests
from deploy.local import StackSettings, check_bundle
from deploy.ports import ANY_FREE
from deploy.running import running_stack, stop_signals
from deploy.screen import CommandError, describe_bundle
from protos import tensors
from protos.tandem.v1 import decoder_pb2, gateway_pb2

REFERENCE = "decoder_service.export.reference"
TOKENS = 32
PICTURE_SIZES = ((160, 96), (96, 128))  # width, height, pixels

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question whose answer is looked at number by number."""

    name: str
    question: str
    pictures: tuple[npt.NDArray[np.uint8], ...] = ()  # each [height, width, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the services made of a probe; T tokens of a prompt of S.

    Arrays: input_ids int32 [S], tokens int32 [T], logits float32 [T, vocab].
    """

    input_ids: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    logits: Logits


def probes() -> list[Probe]:
    """Text alone, then one and several drawn pictures, the same in every run."""
    pictures = tuple(_drawn(index, *size) for index, size in enumerate(PICTURE_SIZES))
    return [
        Probe(name="text", question="Name three colours."),
        Probe(name="one picture", question="What is in the picture?", pictures=pictures[:1]),
        Probe(name="other picture", question="What is in the picture?", pictures=pictures[1:]),
        Probe(name="two pictures", question="What differs between them?", pictures=pictures),
    ]


def _drawn(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin((rows * a + columns * b) / 17.0) for a, b in ((seed + 1, 2), (3, seed), (1, 1))]
    return ((np.stack(waves, axis=-1) + 1.0) * 127.5).astype(np.uint8)


def verify(console: Console, path: Path, *, checkpoint: Path | None) -> None:
    """Checks digests, then answers through the three services, then against transformers.

    Raises:
        CommandError: a check failed.
        LaunchError: the bundle is missing, or a service does not start with it.
        ServiceError: a service refused a probe.
    """
    with stop_signals():
        bundle = check_bundle(path)
        console.print(describe_bundle(bundle), highlight=False, soft_wrap=True)
        check_digests(console, bundle)
        _passed(console, f"{len(bundle.manifest.files)} files match the manifest")
        readings = _read_all(console, path)
        exact = bundle.manifest.graph.precision == "fp32"
        if checkpoint is not None:
            for probe, reading in zip(probes(), readings, strict=True):
                agreement = _against_transformers(console, checkpoint, probe, reading)
                _judge(console, probe, agreement, exact=exact)


def _passed(console: Console, text: str) -> None:
    console.print(f"[green]ok[/green] {text}", highlight=False, soft_wrap=True)


def _read_all(console: Console, path: Path) -> list[Reading]:
    settings = StackSettings(
        bundle=path, ports=ANY_FREE, flags={"decoder": ["--allow-logits=true"]}
    )
    with (
        running_stack(console, settings, quiet=True) as stack,
        ChatClient(stack.addresses["gateway"]) as client,
    ):
        readings = []
        for probe in probes():
            readings.append(_read(client, probe))
            count = len(readings[-1].tokens)
            _passed(console, f"{probe.name}: {count} tokens through the three services")
    if np.array_equal(readings[1].logits[0], readings[2].logits[0]):
        raise CommandError("two different pictures gave the same answer: pictures are not used")
    return readings


def _read(client: ChatClient, probe: Probe) -> Reading:
    conversation = Conversation()
    conversation.ask(probe.question, [_png(picture) for picture in probe.pictures])
    request = gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0, repetition_penalty=1.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=TOKENS, ignore_eos=True),
        report_options=decoder_pb2.ReportOptions(logits=True),
    )
    tokens: list[int] = []
    logits: list[Logits] = []
    for chunk in client.complete(request):
        tokens.extend(chunk.token_ids)
        if chunk.token_ids:
            shape = (len(chunk.token_ids), None)
            logits.append(tensors.float32_from_proto(chunk.logits, field="logits", shape=shape))
    if not tokens:
        raise CommandError(f"{probe.name}: the answer held no token")
    prompt = client.prepare(gateway_pb2.PrepareRequest(messages=conversation.messages))
    return Reading(
        input_ids=np.asarray(prompt.input_ids, dtype=np.int32),
        tokens=np.asarray(tokens, dtype=np.int32),
        logits=np.concatenate(logits),
    )


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def _against_transformers(
    console: Console, checkpoint: Path, probe: Probe, reading: Reading
) -> Agreement:
    """Runs transformers in a process of its own: torch has no place in this one."""
    with tempfile.TemporaryDirectory(prefix="tandem-verify-") as folder:
        question, answer = Path(folder) / "question.npz", Path(folder) / "answer.npz"
        arrays: dict[str, Any] = {"input_ids": reading.input_ids, "tokens": reading.tokens}
        arrays |= {f"picture_{index}": pixels for index, pixels in enumerate(probe.pictures)}
        np.savez(question, **arrays)
        command = [sys.executable, "-P", "-m", REFERENCE, str(checkpoint)]
        with console.status(f"{probe.name}: asking transformers"):
            run = subprocess.run(
                [*command, str(question), str(answer)], capture_output=True, text=True
            )
        if run.returncode != 0:
            lines = [line for line in run.stderr.splitlines() if line.strip()] or ["no output"]
            raise CommandError(f"transformers could not answer: {lines[-1]}")
        with np.load(answer, allow_pickle=False) as found:
            return compare(reading.tokens, reading.logits, found["logits"])


def _judge(console: Console, probe: Probe, agreement: Agreement, *, exact: bool) -> None:
    text = f"{probe.name}: {agreement.describe()}"
    if exact and not agreement.is_exact:
        raise CommandError(f"{text}; an fp32 bundle must agree exactly")
    _passed(console, text)
