"""Commands that measure, and that plan with what was measured."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.cli.modules import become, need
from deploy.cli.options import (
    PASSED_ON,
    SERVER_FORMS,
    AuthorityOption,
    CertificateKeyOption,
    CertificateOption,
    KeyOption,
    SetOption,
    ThreadsOption,
)
from deploy.commands import bench, demo, serve
from deploy.commands.running import StopRequested
from deploy.commands.server import ClientFiles
from deploy.costs import measurement
from deploy.load import options as load_options
from deploy.load.plan import LoadPlan, sizes_of
from deploy.terminal.screen import CommandError, examples

commands = typer.Typer()


@commands.command(
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
    need("gateway")
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
    flags = {tier: [*measurement.FLAGS.get(tier, ()), *given] for tier, given in flags.items()}
    also = partial(measurement.write, costs_file, console, flags)
    return bench.run(console, bundle, load, flags=flags, also=also)


@commands.command("plan", context_settings=PASSED_ON, add_help_option=False)
def plan_command(context: typer.Context) -> None:
    """Say how many encoder replicas and decoders a load needs: tandem plan COSTS."""
    become("gateway", "planner", context.args or ["--help"])
