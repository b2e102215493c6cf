"""Measures an endpoint, and shows and draws what was measured."""

import ssl
import sys
from pathlib import Path

from rich.console import Console

from deploy.load import plot
from deploy.load.plan import LoadPlan
from deploy.load.run import Outcome, run
from deploy.load.show import show
from deploy.terminal.screen import CommandError


def measure(
    console: Console,
    plan: LoadPlan,
    *,
    api_key: str | None,
    tls: ssl.SSLContext | None,
    plot_file: Path | None,
) -> Outcome:
    """Runs the load; shows and draws its figures, of a stopped one those so far.

    Raises:
        CommandError: see `run`; or the plot's folder is not there, which is said before the load.
    """
    if plot_file is not None and not plot_file.parent.is_dir():
        raise CommandError(f"--plot: there is no folder {plot_file.parent}", exit_code=2)
    outcome = run(Console(file=sys.stderr), plan, api_key=api_key, tls=tls)
    show(console, outcome.figures, outcome.records)
    if plot_file is not None:
        try:
            plot.write(plot_file, outcome.figures, outcome.records)
        except OSError as error:
            raise CommandError(f"--plot: {plot_file}: {error.strerror}") from error
        console.print(f"plot in {plot_file}", highlight=False, markup=False, soft_wrap=True)
    return outcome
