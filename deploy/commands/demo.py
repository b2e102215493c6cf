"""`tandem demo`: a small model, an image, three questions, answered in the terminal."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from deploy.client import ChatClient, Conversation
from deploy.commands.running import own_stack, stop_signals
from deploy.stack.local import LaunchError, StackSettings, check_bundle
from deploy.stack.paths import cache_dir
from deploy.stack.ports import ANY_FREE
from deploy.terminal.answer import Answer, duration, stream_answer
from deploy.terminal.image import half_blocks, read_image
from deploy.terminal.screen import CommandError
from protos.bundle.manifest import FORMAT_VERSION, file_sha256
from protos.tandem.v1 import decoder_pb2, gateway_pb2

DEMO = Path(__file__).parents[1] / "demo"
CHECKPOINT = DEMO / "checkpoint"
IMAGE = DEMO / "picture.png"
QUESTIONS = DEMO / "questions.json"  # a list of {"question": ..., "answer": ...}

EXPORTER = "deploy.export"
MAX_TOKENS = 48
IMAGE_COLUMNS = 48


def run(
    console: Console, *, checkpoint: Path, image_path: Path, precision: str, verbose: bool
) -> None:
    """Exports the demonstration model once, serves it, asks the questions.

    Raises:
        CommandError: a file of the demonstration is missing, or the export failed.
        LaunchError: the stack did not start.
        ServiceError: a question failed.
    """
    started = time.perf_counter()
    with stop_signals():
        image, asked = read_image(image_path), questions()
        bundle = demo_bundle(console, checkpoint, precision)
        settings = StackSettings(bundle=bundle, ports=ANY_FREE)
        with own_stack(console, settings, verbose=verbose) as (_, client):
            _show_image(console, image_path)
            answers = [_ask(console, client, image, question) for question in asked]
        _sum_up(console, answers, time.perf_counter() - started, bundle)


def questions() -> list[str]:
    """What is asked about the image.

    Raises:
        CommandError: the file is missing.
    """
    try:
        listed = json.loads(QUESTIONS.read_text())
    except OSError as error:
        raise CommandError("the installation lacks the demonstration's questions") from error
    return [entry["question"] for entry in listed]


def demo_bundle(console: Console, checkpoint: Path, precision: str) -> Path:
    """The demonstration model's bundle, exported on first use.

    Raises:
        CommandError: the checkpoint is missing, or the export failed.
    """
    if not checkpoint.is_dir():
        raise CommandError("the installation lacks the demonstration model", exit_code=2)
    bundle = cache_dir(os.environ) / f"demo-{_fingerprint(checkpoint)}-{precision}"
    try:
        check_bundle(bundle)
    except LaunchError:
        shutil.rmtree(bundle, ignore_errors=True)  # a damaged one; the cache is ours
        with console.status("exporting the demonstration model (first time only)"):
            _export(checkpoint, bundle, precision)
    return bundle


def _export(checkpoint: Path, bundle: Path, precision: str) -> None:
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", EXPORTER, str(checkpoint), str(bundle)]
    done = subprocess.run([*command, f"--precision={precision}"], capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise CommandError(f"the demonstration model could not be exported: {lines[-1]}")


def _fingerprint(checkpoint: Path) -> str:
    """Changes when the model or the format of its bundle does."""
    digest = hashlib.sha256(f"format {FORMAT_VERSION}\n".encode())
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(checkpoint)} {file_sha256(file)}\n".encode())
    return digest.hexdigest()[:12]


def _show_image(console: Console, path: Path) -> None:
    if console.is_terminal and console.color_system is not None:
        console.print(half_blocks(path, columns=min(IMAGE_COLUMNS, console.width)))
    else:
        console.print(f"image: {path.name}", highlight=False, soft_wrap=True)


def _ask(console: Console, client: ChatClient, image: bytes, question: str) -> Answer:
    console.print(f"\n[bold]{question}[/bold]", highlight=False, soft_wrap=True)
    conversation = Conversation()
    conversation.ask(question, [image])
    request = gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=MAX_TOKENS),
    )
    answer = stream_answer(console, client.complete(request))
    console.print(answer.cost(), style="dim", highlight=False, soft_wrap=True)
    return answer


def _sum_up(console: Console, answers: list[Answer], total_s: float, bundle: Path) -> None:
    model_ms = sum(answer.model_ms for answer in answers)
    tandem = _program()
    console.print(
        f"\n{len(answers)} answers in {total_s:.1f} s, {duration(model_ms)} of it the model's."
        " This is a small demonstration model; to ask it in a browser:\n"
        f"  {tandem} serve {bundle}\n"
        "A real one:\n"
        f"  {tandem} export Qwen/Qwen3-VL-2B-Instruct BUNDLE && {tandem} serve BUNDLE",
        highlight=False,
        soft_wrap=True,
    )


def _program() -> str:
    """What to type for `tandem`: its name where the shell finds it, else as it was called."""
    called = sys.argv[0]
    found = shutil.which("tandem")
    if Path(called).name != "tandem" or (found and Path(found).resolve() == Path(called).resolve()):
        return "tandem"
    return called
