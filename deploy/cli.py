"""The `tandem` command."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from deploy.commands import bench, chat, costs, demo, doctor, extras, serve, verify
from deploy.commands.running import StopRequested
from deploy.commands.server import ClientFiles
from deploy.load import options as load_options
from deploy.load.plan import LoadPlan, sizes_of
from deploy.stack.local import MODULES, TIERS, LaunchError, StackSettings
from deploy.stack.ports import LOOPBACK, Ports
from deploy.terminal.screen import CommandError, Screen, examples
from deploy.terminal.typed import read_piped
from protos.wire import channels
from protos.wire.errors import ServiceError

app = typer.Typer(
    help="Serves Qwen vision-language models: a PyTorch vision tier, an ONNX text tier, a gateway.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder written by `tandem export`.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TIER.NAME=VALUE",
        help="Any setting of a service, for example decoder.max-sequences=4;"
        " `tandem serve decoder --help` lists them. May be repeated.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Compute threads of vision and of decoder each. Default: all cores."),
]
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # to another module
SERVER_FORMS = "the URL that `tandem serve` prints, or HOST:PORT of its gRPC door."
KeyOption = Annotated[
    str | None, typer.Option(envvar="TANDEM_API_KEY", help="The server's key, if it has one.")
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TANDEM_AUTHORITY",
        help="PEM file of who signed the server's certificate; speaks TLS, as an https URL does.",
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TANDEM_CERTIFICATE", help="PEM file of a certificate the server asks for."
    ),
]
CertificateKeyOption = Annotated[
    Path | None, typer.Option("--key", envvar="TANDEM_KEY", help="PEM file of its private key.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the services' logs.")]


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


@app.command("demo", epilog=examples("tandem demo", "tandem demo --image photo.jpg"))
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


@app.command(
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


@app.command("export", context_settings=PASSED_ON, add_help_option=False)
def export_command(context: typer.Context) -> None:
    """Turn a checkpoint (folder or hub id) into a bundle: tandem export CHECKPOINT BUNDLE."""
    _become("export", "deploy.export", context.args or ["--help"])


@app.command("render", context_settings=PASSED_ON, add_help_option=False)
def render_command(context: typer.Context) -> None:
    """Print the vision tier as a file: tandem render serve|kuberay BUNDLE, and its settings."""
    kind = context.args[:1] or ["--help"]
    arguments = [*kind, *serve.tier_arguments(context.args[1:])]
    _become("vision", "vision_service.manifests", arguments)


@app.command("vision-down", context_settings=PASSED_ON, add_help_option=False)
def vision_down_command(context: typer.Context) -> None:
    """End what no vision service uses on a Ray cluster: tandem vision-down --ray-address auto."""
    _become("vision", "vision_service.cluster.down", context.args)


@app.command(
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


@app.command(
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


@app.command(
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


@app.command("doctor", epilog=examples("tandem doctor", "tandem doctor bundles/2b"))
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


@app.command(
    "bench",
    epilog=examples(
        "tandem bench bundles/2b",
        "tandem bench --server http://127.0.0.1:8000/v1 --runs 5",
        "tandem bench --url http://127.0.0.1:8000/v1 --rate 2 --ttft-ms 2000 --plot load.png",
    ),
)
def bench_command(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="What to serve. Default: the demonstration model."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help=f"Measure a server that runs instead: {SERVER_FORMS}"),
    ] = None,
    api_key: KeyOption = None,
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    key: CertificateKeyOption = None,
    width: Annotated[int, typer.Option(min=32, help="Image width, pixels.")] = 1024,
    height: Annotated[int, typer.Option(min=32, help="Image height, pixels.")] = 768,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens per answer.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Measured questions, after one warm-up.")] = 3,
    threads: ThreadsOption = None,
    settings: SetOption = None,
    costs_file: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="FILE",
            help="Measure what each kind of work costs, too, for `tandem plan FILE`.",
        ),
    ] = None,
    url: load_options.Url = None,
    model: load_options.Model = None,
    rate: load_options.Rate = None,
    concurrency: load_options.Concurrency = None,
    requests: load_options.Requests = 32,
    sizes: load_options.Sizes = None,
    images: load_options.Images = 1,
    video_frames: load_options.VideoFrames = 0,
    ignore_eos: load_options.IgnoreEos = False,
    ttft_ms: load_options.TtftMs = None,
    itl_ms: load_options.ItlMs = None,
    timeout: load_options.Timeout = 600.0,
    seed: load_options.Seed = 0,
    plot: load_options.Plot = None,
) -> None:
    """Measure an image question: where the time goes, memory, start-up. Last line is JSON.

    With --url, measure any endpoint that speaks OpenAI's chat API under load.
    """
    console = Console()
    if url is not None:
        if bundle is not None or server is not None or settings or threads or costs_file:
            raise CommandError(
                "--url measures an endpoint; it takes no BUNDLE, --server, --threads, --set or"
                " --costs",
                exit_code=2,
            )
        plan = LoadPlan(
            url=url,
            model=model,
            rate=rate,
            concurrency=concurrency,
            requests=requests,
            sizes=sizes_of(sizes or f"{width}x{height}"),
            images=images,
            video_frames=video_frames,
            tokens=tokens,
            ignore_eos=ignore_eos,
            ttft_ms=ttft_ms,
            itl_ms=itl_ms,
            timeout_s=timeout,
            seed=seed,
        )
        files = ClientFiles(authority=authority, certificate=certificate, key=key)
        _load(console, plan, api_key, files, plot)
        return
    load = bench.Load(width=width, height=height, tokens=tokens, runs=runs)
    if server is not None:
        if bundle is not None or settings or threads is not None or costs_file is not None:
            raise CommandError(
                "--server measures what runs; it takes no BUNDLE, --threads, --set or --costs",
                exit_code=2,
            )
        files = ClientFiles(authority=authority, certificate=certificate, key=key)
        report = bench.run_against(server, load, api_key=api_key, files=files)
    else:
        flags = serve.tier_flags(settings or [], threads=threads)
        served = bundle or demo.demo_bundle(console, demo.CHECKPOINT, "int4")
        report = _measured(console, served, load, flags, costs_file)
    bench.show(console, report)
    print(report.to_json())


def _load(
    console: Console,
    plan: LoadPlan,
    api_key: str | None,
    files: ClientFiles,
    plot_file: Path | None,
) -> None:
    """Runs a load, and prints its figures; ends as the signal says that stopped it."""
    _need("gateway")
    from deploy.load.command import measure  # here: its library is the gateway's

    outcome = measure(
        console, plan, api_key=api_key, tls=files.context(plan.url), plot_file=plot_file
    )
    print(outcome.figures.to_json())
    if outcome.stopped_by is not None:
        raise StopRequested(outcome.stopped_by)


def _measured(
    console: Console,
    bundle: Path,
    load: bench.Load,
    flags: dict[str, list[str]],
    costs_file: Path | None,
) -> bench.Report:
    """A stack's report, and its costs where there is a file for them."""
    if costs_file is None:
        return bench.run(console, bundle, load, flags=flags)
    flags = {tier: [*costs.FLAGS.get(tier, ()), *given] for tier, given in flags.items()}
    also = partial(costs.write, costs_file, console, flags)
    return bench.run(console, bundle, load, flags=flags, also=also)


@app.command(
    "plan",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def plan_command(context: typer.Context) -> None:
    """Say how many encoder replicas and decoders a load needs: tandem plan COSTS."""
    _become("gateway", "planner", context.args or ["--help"])


def _become(extra: str, module: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by a module of another package.

    Raises:
        CommandError: a library that module needs is not installed.
    """
    _need(extra)
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def _need(extra: str) -> None:
    """Refuses where a library of an extra is not installed.

    Raises:
        CommandError: naming the first of them, and how to install it.
    """
    missing = [name for name in extras.required(extra) if extras.installed(name) is None]
    if missing:
        raise CommandError(
            f"{missing[0]} is not installed; this needs: pip install 'tandem-vlm[{extra}]'",
            exit_code=2,
        )


def main() -> None:
    """Runs the command line; every expected failure is one line on stderr."""
    try:
        if sys.argv[1:2] == ["serve"] and sys.argv[2:3] and sys.argv[2] in TIERS:
            _become(sys.argv[2], MODULES[sys.argv[2]], serve.tier_arguments(sys.argv[3:]))
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
