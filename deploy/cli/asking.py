"""Commands that ask questions, and that look at a bundle and a machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli.options import (
    SERVER_FORMS,
    AuthorityOption,
    BundleArgument,
    CertificateKeyOption,
    CertificateOption,
    KeyOption,
)
from deploy.commands import chat, doctor, verify
from deploy.commands.server import ClientFiles
from deploy.stack.ports import LOOPBACK
from deploy.terminal.screen import Screen, examples
from deploy.terminal.typed import read_piped
from protos.wire import channels

commands = typer.Typer()


@commands.command(
    "chat",
    epilog=examples(
        'tandem chat --image photo.jpg "What is on the table?"',
        'git diff | tandem chat "What does this change?"',
        "tandem chat --server http://127.0.0.1:8000/v1",
    ),
)
def chat_command(
    question: Annotated[
        str | None,
        typer.Argument(
            help="What to ask; what is piped in joins it. Without it: an interactive chat."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="An image; may be repeated.")
    ] = None,
    video: Annotated[
        list[Path] | None, typer.Option("--video", help="A video; may be repeated.")
    ] = None,
    server: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help=f"A running server: {SERVER_FORMS}",
        ),
    ] = f"{LOOPBACK}:{channels.GATEWAY_GRPC_PORT}",
    bundle: Annotated[
        Path | None, typer.Option(help="Serve this bundle for the chat, instead of --server.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy. Default: the model's own.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Show answers as they are, not as Markdown.")
    ] = False,
    api_key: KeyOption = None,
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    key: CertificateKeyOption = None,
) -> None:
    """Ask about images and videos: tandem chat --image FILE "question"."""
    settings = chat.ChatSettings(
        server=server,
        bundle=bundle,
        api_key=api_key,
        files=ClientFiles(authority=authority, certificate=certificate, key=key),
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        markdown=not plain,
    )
    if question is not None:
        question = "\n\n".join(text for text in (question, read_piped().strip()) if text)
    chat.run(Screen.of_process(), settings, image or [], question, videos=video or [])


@commands.command(
    "verify",
    epilog=examples(
        "tandem verify bundles/2b", "tandem verify bundles/2b --checkpoint Qwen3-VL-2B-Instruct"
    ),
)
def verify_command(
    bundle: BundleArgument,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder: also compare with transformers, number by number."),
    ] = None,
) -> None:
    """Check a bundle: every byte, every service, and agreement with transformers."""
    verify.run(Console(), bundle, checkpoint=checkpoint)


@commands.command("doctor", epilog=examples("tandem doctor", "tandem doctor bundles/2b"))
def doctor_command(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Also say what would keep it from being served here, and the speed to expect.",
        ),
    ] = None,
) -> None:
    """Show what this machine offers and what is missing. Exit code 1 where something is."""
    findings = doctor.examine(bundle)
    doctor.show(Console(), findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
