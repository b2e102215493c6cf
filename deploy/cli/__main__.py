"""The `tandem` command."""

import sys
from importlib import metadata
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from deploy.cli import asking, measuring, serving
from deploy.cli.modules import become
from deploy.commands import extras, serve
from deploy.commands.running import StopRequested
from deploy.stack.local import MODULES, TIERS, LaunchError
from deploy.terminal.screen import CommandError
from protos.wire.errors import ServiceError

app = typer.Typer(
    help="Serves Qwen vision-language models: a PyTorch vision tier, an ONNX text tier, a gateway.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for part in (serving, asking, measuring):
    app.add_typer(part.commands)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tandem {metadata.version(extras.PACKAGE)}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Runs the command line; every expected failure is one line on stderr."""
    try:
        if sys.argv[1:2] == ["serve"] and sys.argv[2:3] and sys.argv[2] in TIERS:
            become(sys.argv[2], MODULES[sys.argv[2]], serve.tier_arguments(sys.argv[3:]))
        app()
    except (CommandError, LaunchError) as error:
        _fail(str(error), error.exit_code)
    except ServiceError as error:
        _fail(error.message, 1)
    except StopRequested as stop:
        sys.exit(128 + stop.number)


def _fail(message: str, exit_code: int) -> NoReturn:
    Console(stderr=True).print(
        f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
