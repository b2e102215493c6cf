"""`tandem verify`: a bundle's files, its services, and its agreement with transformers."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from deploy import tower_loss
from deploy.commands.agreement import Agreement, compare, pooled
from deploy.commands.digests import check_digests
from deploy.commands.probes import Reading, probes, read
from deploy.commands.running import own_stack, stop_signals
from deploy.stack.local import StackSettings, check_bundle
from deploy.stack.ports import ANY_FREE
from deploy.terminal.screen import CommandError, describe_bundle
from kernels import library
from protos.bundle.manifest import Bundle, DecoderGraph

REFERENCE = "deploy.export.comparison.reference"
LEVEL_ZERO = "deploy.export.comparison.level_zero"
QUANTIZED = ("int4", "int8")


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
        tower = bundle.manifest.quality.get("tower")
        if tower is not None:
            _measured(console, tower_loss.described(tower))
        readings = _read_all(console, bundle)
        if checkpoint is not None:
            with tempfile.TemporaryDirectory(
                prefix="tandem-verify-", dir=_beside(bundle.path)
            ) as folder:
                _compare(console, bundle, checkpoint, readings, Path(folder))


def _compare(
    console: Console, bundle: Bundle, checkpoint: Path, readings: Sequence[Reading], work: Path
) -> None:
    """Compares with transformers: what is served, and for a quantized bundle its level 0 too.

    At level 0 only the order of sums may differ from transformers over the bundle's own weights;
    what quantization itself costs is a measurement, not a failure.
    """
    graph = bundle.manifest.graph
    served, zero = work / "served", work / "level-0"
    _write_questions(served, readings)
    arguments = [str(checkpoint), str(served)]
    exact: Sequence[Reading] = []
    if graph.precision in QUANTIZED:
        exact = readings if graph.accuracy_level == 0 else _read_level_zero(console, bundle, work)
        _write_questions(zero, exact)
        arguments += [str(bundle.path / graph.file), str(zero)]
    with console.status("asking transformers"):
        _export_tool(REFERENCE, arguments, "transformers could not answer")
    if exact:
        for probe, agreement in zip(probes(), _agreements(zero, exact), strict=True):
            _judge(console, f"{probe.name}, {graph.precision} at level 0", agreement)
    agreements = _agreements(served, readings)
    for probe, agreement in zip(probes(), agreements, strict=True):
        if graph.precision == "fp32":
            _judge(console, probe.name, agreement)
        else:
            _measured(console, f"{probe.name}, as served: {agreement.describe()}")
    if graph.precision != "fp32":
        whole = pooled(agreements)
        _measured(
            console,
            f"{_form(graph)} beside the float32 checkpoint: top-1 {whole.top1:.3f},"
            f" KL {whole.mean_kl:.2g} nats over {whole.tokens} tokens",
        )


def _beside(path: Path) -> Path | None:
    """The bundle's own disk, where a copy of its weights fits likelier than in /tmp's memory.

    None where it is read-only.
    """
    parent = path.resolve().parent
    return parent if os.access(parent, os.W_OK) else None


def _form(graph: DecoderGraph) -> str:
    level = "" if graph.accuracy_level is None else f" at level {graph.accuracy_level}"
    return f"{graph.precision}{level}"


def _read_level_zero(console: Console, bundle: Bundle, work: Path) -> list[Reading]:
    folder = work / "bundle"
    _export_tool(LEVEL_ZERO, [str(bundle.path), str(folder)], "no level 0 could be made")
    return _read_all(console, Bundle.open(folder), note=" at level 0")


def _write_questions(folder: Path, readings: Sequence[Reading]) -> None:
    folder.mkdir()
    for index, (probe, reading) in enumerate(zip(probes(), readings, strict=True)):
        arrays: dict[str, Any] = {"input_ids": reading.input_ids, "tokens": reading.tokens}
        arrays |= {f"image_{at}": pixels for at, pixels in enumerate(probe.images)}
        np.savez(folder / f"question-{index}.npz", **arrays)


def _agreements(folder: Path, readings: Sequence[Reading]) -> list[Agreement]:
    agreements = []
    for index, reading in enumerate(readings):
        with np.load(folder / f"answer-{index}.npz", allow_pickle=False) as found:
            agreements.append(compare(reading.tokens, reading.logits, found["logits"]))
    return agreements


def _export_tool(module: str, arguments: Sequence[str], fault: str) -> None:
    """Runs a module in a process of its own: torch and onnx have no place in this one."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise CommandError(f"{fault}: {lines[-1]}")


def _judge(console: Console, name: str, agreement: Agreement) -> None:
    text = f"{name}: {agreement.describe()}"
    if not agreement.is_exact:
        raise CommandError(f"{text}; float32 and level 0 must agree exactly")
    _passed(console, text)


def _measured(console: Console, text: str) -> None:
    console.print(f"[yellow]--[/yellow] {text}", highlight=False, soft_wrap=True)


def _passed(console: Console, text: str) -> None:
    console.print(f"[green]ok[/green] {text}", highlight=False, soft_wrap=True)


def _float32_tower() -> str:
    """The tower whose features are transformers', so that whatever differs is the decoder's."""
    return "exact" if library.path() is not None else "torch"


def _read_all(console: Console, bundle: Bundle, *, note: str = "") -> list[Reading]:
    settings = StackSettings(
        bundle=bundle.path,
        ports=ANY_FREE,
        flags={"decoder": ["--allow-logits=true"], "vision": [f"--tower={_float32_tower()}"]},
    )
    with own_stack(console, settings, quiet=True) as (_, client):
        readings = []
        for probe in probes():
            readings.append(read(client, probe, bundle.manifest.special_tokens))
            count = len(readings[-1].tokens)
            _passed(console, f"{probe.name}: {count} tokens through the three services{note}")
    if np.array_equal(readings[1].logits[0], readings[2].logits[0]):
        raise CommandError("two different images gave the same answer: images are not used")
    return readings
