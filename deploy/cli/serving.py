"""Commands that make bundles, and that run, place and secure services."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli.modules import become
from deploy.cli.options import PASSED_ON, BundleArgument, SetOption, ThreadsOption, VerboseOption
from deploy.commands import demo, serve
from deploy.stack.local import StackSettings
from deploy.stack.ports import LOOPBACK, Ports
from deploy.terminal.screen import examples
from protos.wire import channels

commands = typer.Typer()


@commands.command("demo", epilog=examples("tandem demo", "tandem demo --image photo.jpg"))
def demo_command(
    precision: Annotated[str, typer.Option(help="int4, int8, fp16 or fp32.")] = "int4",
    checkpoint: Annotated[Path, typer.Option(hidden=True)] = demo.CHECKPOINT,
    image: Annotated[Path, typer.Option(help="Another image to ask about.")] = demo.IMAGE,
    verbose: VerboseOption = False,
) -> None:
    """Serve a small model and ask it about an image, here in the terminal."""
    demo.run(
        Console(), checkpoint=checkpoint, image_path=image, precision=precision, verbose=verbose
    )


@commands.command(
    "serve",
    epilog="`tandem serve vision|decoder|gateway BUNDLE ...` runs one service alone, in the"
    " foreground; `tandem serve vision --help` lists its settings."
    + examples(
        "tandem serve bundles/2b",
        "tandem serve bundles/2b --http-port 9000 --set decoder.max-sequences=4",
        "tandem serve bundles/2b --config tandem.toml",
    ),
)
def serve_command(
    bundle: BundleArgument,
    host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = LOOPBACK,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="OpenAI HTTP door; 0: any free port.")
    ] = channels.GATEWAY_HTTP_PORT,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="gRPC door.")
    ] = channels.GATEWAY_GRPC_PORT,
    vision_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Vision tier, on loopback.")
    ] = channels.VISION_PORT,
    decoder_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Text tier, on loopback.")
    ] = channels.DECODER_PORT,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Keys, comma-separated, one of which every request must carry. Safer in"
            " GATEWAY_API_KEY: others on the machine can read a command's options."
        ),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="Name that clients use. Default: the bundle's.")
    ] = None,
    threads: ThreadsOption = None,
    settings: SetOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file of settings with sections \\[vision], \\[decoder], \\[gateway]; options"
            " here and environment names such as DECODER_THREADS outdo it.",
        ),
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Folder for the services' logs.", show_default="per port")
    ] = None,
    startup_timeout: Annotated[float, typer.Option(min=1, help="Seconds to become ready.")] = 600.0,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds running answers get when stopping.")
    ] = 15.0,
    restart: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="TIMES",
            help="Start a tier that dies again, so often, after 1, 2, 4 ... s. 0: the end of one"
            " tier ends all three.",
        ),
    ] = 0,
    verbose: VerboseOption = False,
) -> None:
    """Serve a bundle on this machine: all three services, until Ctrl-C."""
    stack = StackSettings(
        bundle=bundle,
        host=host,
        ports=Ports(http=http_port, grpc=grpc_port, vision=vision_port, decoder=decoder_port),
        flags=serve.tier_flags(
            settings or [], threads=threads, model_name=model_name, config=config
        ),
        environment={
            "gateway": {
                **serve.file_environment(config, os.environ),
                **({} if api_key is None else {"GATEWAY_API_KEY": api_key}),
            }
        },
        log_dir=log_dir,
        startup_timeout_s=startup_timeout,
        drain_timeout_s=drain_timeout,
    )
    serve.run(Console(), stack, verbose=verbose, restarts=restart)


@commands.command("export", context_settings=PASSED_ON, add_help_option=False)
def export_command(context: typer.Context) -> None:
    """Turn a checkpoint (folder or hub id) into a bundle: tandem export CHECKPOINT BUNDLE."""
    become("export", "deploy.export", context.args or ["--help"])


@commands.command("render", context_settings=PASSED_ON, add_help_option=False)
def render_command(context: typer.Context) -> None:
    """Print the vision tier as a file: tandem render serve|kuberay BUNDLE, and its settings."""
    kind = context.args[:1] or ["--help"]
    arguments = [*kind, *serve.tier_arguments(context.args[1:])]
    become("vision", "vision_service.manifests", arguments)


@commands.command("vision-down", context_settings=PASSED_ON, add_help_option=False)
def vision_down_command(context: typer.Context) -> None:
    """End what no vision service uses on a Ray cluster: tandem vision-down --ray-address auto."""
    become("vision", "vision_service.cluster.down", context.args)


@commands.command("vision-drain", context_settings=PASSED_ON, add_help_option=False)
def vision_drain_command(context: typer.Context) -> None:
    """Take this host's Ray node off its cluster without losing work: tandem vision-drain."""
    become("vision", "vision_service.cluster.drain", context.args)


@commands.command(
    "certificates",
    epilog=examples("tandem certificates secrets gateway-1 vision-1,10.0.0.4 decoder-1"),
)
def certificates_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where everything is kept.")],
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST",
            help="A host's name or address, as others reach it; several of one host are joined by"
            " commas. None: the hosts that FOLDER has are renewed.",
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long certificates are valid.")] = 365,
) -> None:
    """Make what services on several hosts know each other by: certificates and a token."""
    from deploy import certificates  # here, because no other command waits for its library

    certificates.run(Console(), folder, hosts or [], days=days)
