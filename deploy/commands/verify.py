"""`tandem verify`: a bundle's files, its services, and its agreement with transformers."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from deploy.client import ChatClient
from deploy.commands.agreement import Agreement, compare
from deploy.commands.digests import check_digests
from deploy.commands.probes import Logits, Probe, Reading, probes, read
from deploy.commands.running import running_stack, stop_signals
from deploy.stack.local import StackSettings, check_bundle
from deploy.stack.ports import ANY_FREE
from deploy.terminal.screen import CommandError, describe_bundle
from protos.bundle.manifest import Bundle

REFERENCE = "deploy.export.reference"


def run(console: Console, path: Path, *, checkpoint: Path | None) -> None:
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
        readings = _read_all(console, bundle)
        if checkpoint is not None:
            exact = bundle.manifest.graph.precision == "fp32"
            with console.status("asking transformers"):
                answers = _transformers_logits(checkpoint, readings)
            for probe, reading, answer in zip(probes(), readings, answers, strict=True):
                agreement = compare(reading.tokens, reading.logits, answer)
                _judge(console, probe, agreement, exact=exact)


def _passed(console: Console, text: str) -> None:
    console.print(f"[green]ok[/green] {text}", highlight=False, soft_wrap=True)


def _read_all(console: Console, bundle: Bundle) -> list[Reading]:
    settings = StackSettings(
        bundle=bundle.path, ports=ANY_FREE, flags={"decoder": ["--allow-logits=true"]}
    )
    with (
        running_stack(console, settings, quiet=True) as stack,
        ChatClient(stack.addresses["gateway"]) as client,
    ):
        readings = []
        for probe in probes():
            readings.append(read(client, probe, bundle.manifest.special_tokens))
            count = len(readings[-1].tokens)
            _passed(console, f"{probe.name}: {count} tokens through the three services")
    if np.array_equal(readings[1].logits[0], readings[2].logits[0]):
        raise CommandError("two different images gave the same answer: images are not used")
    return readings


def _transformers_logits(checkpoint: Path, readings: Sequence[Reading]) -> list[Logits]:
    """Runs transformers in a process of its own: torch has no place in this one."""
    with tempfile.TemporaryDirectory(prefix="tandem-verify-") as folder:
        for index, (probe, reading) in enumerate(zip(probes(), readings, strict=True)):
            arrays: dict[str, Any] = {"input_ids": reading.input_ids, "tokens": reading.tokens}
            arrays |= {f"image_{at}": pixels for at, pixels in enumerate(probe.images)}
            np.savez(Path(folder) / f"question-{index}.npz", **arrays)
        command = [sys.executable, "-P", "-m", REFERENCE, str(checkpoint), folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
            raise CommandError(f"transformers could not answer: {lines[-1]}")
        answers = []
        for index in range(len(readings)):
            with np.load(Path(folder) / f"answer-{index}.npz", allow_pickle=False) as found:
                answers.append(found["logits"])
        return answers


def _judge(console: Console, probe: Probe, agreement: Agreement, *, exact: bool) -> None:
    text = f"{probe.name}: {agreement.describe()}"
    if not exact:  # what quantization costs is a measurement, not a failure
        console.print(f"[yellow]--[/yellow] {text}", highlight=False, soft_wrap=True)
        return
    if not agreement.is_exact:
        raise CommandError(f"{text}; an fp32 bundle must agree exactly")
    _passed(console, text)
