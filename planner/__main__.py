"""`python -m planner COSTS`: the command behind `tandem plan`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from planner.costs import Costs
from planner.fields import PlanError, count, read_object
from planner.load import Load
from planner.search import Found, meets, ratios, smallest
from planner.show import drawing, show, to_json
from planner.simulation.outcome import Outcome
from planner.simulation.run import Plan, simulate

DEFAULTS = Load()

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _option(text: str, default: object, **more: Any) -> Any:
    return typer.Option(help=f"{text} Default: {default}.", show_default=False, **more)


@app.command(
    epilog="Example: `tandem bench --costs costs.json`, then"
    " `tandem plan costs.json --images 2 --sizes 1024x768:3,448x448 --ttft-s 4`."
)
def plan(
    costs: Annotated[Path, typer.Argument(help="What `tandem bench --costs FILE` wrote.")],
    load: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The load as JSON or TOML, fields named like the options below"
            " (`tokens_out = 256`); options come before it.",
        ),
    ] = None,
    images: Annotated[
        float | None, _option("Requests with an image, per second.", DEFAULTS.images)
    ] = None,
    texts: Annotated[
        float | None, _option("Requests without one, per second.", DEFAULTS.texts)
    ] = None,
    sizes: Annotated[
        str | None,
        _option("Pixels of images, each with how often it comes: 1024x768:3,448x448.", "1024x768"),
    ] = None,
    tokens_in: Annotated[
        float | None, _option("Tokens of a request's text, mean.", DEFAULTS.tokens_in)
    ] = None,
    tokens_out: Annotated[
        float | None, _option("Tokens of an answer, mean.", DEFAULTS.tokens_out)
    ] = None,
    tokens_cv: Annotated[
        float | None, _option("Deviation of both over their mean.", DEFAULTS.tokens_cv)
    ] = None,
    arrivals_cv: Annotated[
        float | None,
        _option(
            "Deviation of the time between requests over its mean: 0 even, 1 at random (Poisson),"
            " more in bursts.",
            DEFAULTS.arrivals_cv,
        ),
    ] = None,
    repeat: Annotated[
        float | None,
        _option("Share of requests about the image of an earlier one.", DEFAULTS.repeat),
    ] = None,
    ttft_s: Annotated[
        float | None, _option("99 of 100 first tokens come within, s.", DEFAULTS.ttft_s)
    ] = None,
    itl_s: Annotated[
        float | None, _option("99 of 100 next tokens come within, s.", DEFAULTS.itl_s)
    ] = None,
    seconds: Annotated[float | None, _option("Simulated time, s.", DEFAULTS.seconds)] = None,
    warm_up_s: Annotated[float | None, _option("Of it not counted, s.", DEFAULTS.warm_up_s)] = None,
    seed: Annotated[int | None, _option("Same seed, same requests.", DEFAULTS.seed)] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Look at so many encoder replicas, with --decoders.")
    ] = None,
    decoders: Annotated[
        int | None, typer.Option(help="Look at so many decoders, with --replicas.")
    ] = None,
    most_nodes: Annotated[int, typer.Option(help="Of both kinds together.")] = 1000,
    curve: Annotated[bool, typer.Option(help="Look at other ratios of the two, too.")] = True,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the curve to a file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON instead.")] = False,
) -> None:
    """How many encoder replicas and decoders a load needs, and what its clients would see.

    The tiers' own scheduler, router, order of passes and placement run over simulated time; what
    steps and passes take comes from COSTS.
    """
    given = {**(read_object(load) if load is not None else {})}
    flags = {
        "images": images, "texts": texts, "sizes": sizes, "tokens_in": tokens_in,
        "tokens_out": tokens_out, "tokens_cv": tokens_cv, "arrivals_cv": arrivals_cv,
        "repeat": repeat, "ttft_s": ttft_s, "itl_s": itl_s, "seconds": seconds,
        "warm_up_s": warm_up_s, "seed": seed,
    }  # fmt: skip
    given.update({name: value for name, value in flags.items() if value is not None})
    wanted, machine = Load.of(given), Costs.open(costs)
    console = Console(stderr=json)
    with console.status("simulating") as status:
        found = _found(
            machine, wanted, replicas, decoders, most_nodes,
            lambda one: status.update(f"simulated {one.replicas}:{one.decoders}"),
        )  # fmt: skip
        total = found.outcome.replicas + found.outcome.decoders
        others = list(ratios(machine, wanted, total)) if curve or plot is not None else []
    if plot is not None:
        plot.write_text(drawing(others, found.outcome))
    if json:
        sys.stdout.write(to_json(wanted, found, others) + "\n")
    else:
        show(console, wanted, found, others)


def _found(
    costs: Costs,
    load: Load,
    replicas: int | None,
    decoders: int | None,
    most_nodes: int,
    told: Any,
) -> Found:
    if replicas is None and decoders is None:
        return smallest(costs, load, most_nodes=count("most_nodes", most_nodes, least=2), told=told)
    if replicas is None or decoders is None:
        missing = "replicas" if replicas is None else "decoders"
        raise PlanError(f"{missing} is not given, expected both of replicas and decoders")
    outcome: Outcome = simulate(
        costs,
        load,
        Plan(
            replicas=count("replicas", replicas, least=1 if load.images else 0, most=100_000),
            decoders=count("decoders", decoders, least=1, most=100_000),
        ),
    )
    return Found(outcome=outcome, meets=meets(outcome, load))


def main() -> None:
    """Runs the command; what cannot be planned with is one line on stderr."""
    try:
        app(prog_name="tandem plan")
    except PlanError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
