"""`python -m planner COSTS`: the command behind `tandem plan`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from planner.costs import Costs
from planner.fields import PlanError, count, read_object
from planner.load import Load
from planner.search import Found, meets, ratios, smallest
from planner.show import drawing, show, to_json
from planner.simulation.outcome import Outcome
from planner.simulation.run import Plan, simulate

ABOUT = (
    "How many encoder replicas and decoders a load needs, and what its clients would see. The"
    " tiers' own scheduler, router, order of passes and autoscaler run over simulated time; what"
    " steps and passes take comes from COSTS."
)
EXAMPLE = (
    "example: tandem bench BUNDLE --costs costs.json, then"
    " tandem plan costs.json --images 2 --sizes 1024x768:3,448x448 --ttft-s 4"
)
# Of a load, by option or by the same name in a file; see `planner.load.Load`.
FIELDS = {
    "images": "requests with an image, per second",
    "texts": "requests without one, per second",
    "sizes": "pixels of images, each with how often it comes: 1024x768:3,448x448",
    "tokens_in": "tokens of a request's text, on average",
    "tokens_out": "tokens of an answer, on average",
    "tokens_cv": "deviation of both over their average",
    "arrivals_cv": "deviation of the time between requests over its average: 0 even, 1 at random"
    " (Poisson), more in bursts",
    "repeat": "share of requests about the image of an earlier one",
    "ttft_s": "99 of 100 first tokens come within, seconds",
    "itl_s": "99 of 100 next tokens come within, seconds",
    "seconds": "simulated time",
    "warm_up_s": "of it not counted",
    "seed": "same seed, same requests",
}


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise PlanError(message)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(prog="tandem plan", description=ABOUT, epilog=EXAMPLE)
    made.add_argument("costs", type=Path, metavar="COSTS", help="what `tandem bench --costs` wrote")
    made.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    made.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the curve to a file")
    made.add_argument("--no-curve", action="store_true", help="look at no other ratios")
    made.add_argument("--most-nodes", default="1000", help="of both kinds together; default 1000")
    fixed = made.add_argument_group("one plan instead of the smallest")
    fixed.add_argument("--replicas", help="encoder replicas")
    fixed.add_argument("--decoders", help="decoders")
    fixed.add_argument("--most-replicas", help="the autoscaler goes up to so many from --replicas")
    load = made.add_argument_group("the load")
    load.add_argument(
        "--load",
        type=Path,
        metavar="FILE",
        help="JSON or TOML with the fields below (tokens_out = 256); options come before it",
    )
    for name, text in FIELDS.items():
        default = "1024x768" if name == "sizes" else f"{getattr(Load(), name):g}"
        load.add_argument(f"--{name.replace('_', '-')}", help=f"{text}; default {default}")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; what cannot be planned with is one line on stderr."""
    try:
        _plan(parser().parse_args(argv))
    except PlanError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _plan(arguments: argparse.Namespace) -> None:
    load, costs = _load(arguments), Costs.open(arguments.costs)
    console = Console(stderr=arguments.json)
    with console.status("simulating") as status:

        def told(one: Outcome) -> None:
            status.update(f"simulated {one.replicas}:{one.decoders}")

        found, curve = _found(arguments, costs, load, told), list[Outcome]()
        if not arguments.no_curve or arguments.plot is not None:
            for outcome in ratios(costs, load, found.outcome.replicas + found.outcome.decoders):
                curve.append(outcome)
                told(outcome)
    if arguments.plot is not None:
        arguments.plot.write_text(drawing(curve, found.outcome))
    if arguments.json:
        sys.stdout.write(to_json(load, found, curve) + "\n")
    else:
        show(console, load, found, curve)


def _load(arguments: argparse.Namespace) -> Load:
    """The load of the file, if any, with the options put over it."""
    given = {} if arguments.load is None else dict(read_object(arguments.load))
    options = {name: getattr(arguments, name) for name in FIELDS}
    given.update({name: _value(text) for name, text in options.items() if text is not None})
    return Load.of(given)


def _found(
    arguments: argparse.Namespace, costs: Costs, load: Load, told: Callable[[Outcome], None]
) -> Found:
    """The plan that was asked about, or the smallest one."""
    if arguments.replicas is None and arguments.decoders is None:
        most = count("most_nodes", _value(arguments.most_nodes), least=2)
        return smallest(costs, load, most_nodes=most, told=told)
    for name in ("replicas", "decoders"):
        if getattr(arguments, name) is None:
            raise PlanError(f"{name} is not given, expected both of replicas and decoders")
    most_replicas, least = None, int(load.images > 0)
    if arguments.most_replicas is not None:
        most_replicas = count("most_replicas", _value(arguments.most_replicas), least=1)
        least = 0  # the autoscaler begins with none
    plan = Plan(
        replicas=count("replicas", _value(arguments.replicas), least=least, most=100_000),
        decoders=count("decoders", _value(arguments.decoders), least=1, most=100_000),
        most_replicas=most_replicas,
    )
    outcome = simulate(costs, load, plan)
    return Found(outcome=outcome, meets=meets(outcome, load))


def _value(text: str) -> Any:
    """An option's number, or its text where it is none: whoever expects another says so."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
