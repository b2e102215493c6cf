"""`tandem serve BUNDLE`: the three services until Ctrl-C, or until one of them dies."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from deploy.commands.running import StopRequested, running_stack, stop_signals
from deploy.stack.local import TIERS, LocalStack, StackSettings, check_bundle
from deploy.stack.record import recorded
from deploy.stack.restarts import Restarts
from deploy.terminal.screen import CommandError, describe_bundle, show_ready
from protos.process import settings_file
from protos.process.settings_file import SettingsFileError, nearest

# Settings of services that are this command's to make, and what chooses them here.
OWN = {
    "gateway": {
        "bundle": "give BUNDLE",
        "host": "give --host",
        "http_port": "give --http-port",
        "grpc_port": "give --grpc-port",
        "vision": "give --vision-port",
        "decoder": "give --decoder-port",
    },
    "vision": {
        "bundle": "give BUNDLE",
        "host": "it is on loopback",
        "port": "give --vision-port",
        "startup_timeout_s": "give --startup-timeout",
    },
    "decoder": {
        "bundle": "give BUNDLE",
        "host": "it is on loopback",
        "port": "give --decoder-port",
    },
}


def run(console: Console, settings: StackSettings, *, verbose: bool, restarts: int = 0) -> None:
    """Runs until a stop signal.

    Args:
        restarts: How often a tier that dies is started again.

    Raises:
        LaunchError: the stack could not start, or a service died.
    """
    started = time.monotonic()
    with stop_signals():
        try:
            console.print(
                describe_bundle(check_bundle(settings.bundle)), highlight=False, soft_wrap=True
            )
            with (
                running_stack(console, settings, verbose=verbose) as stack,
                recorded(os.environ, http_port=stack.ports.http, addresses=stack.addresses),
            ):
                _show_doors(console, stack, time.monotonic() - started)
                raise stack.wait(
                    Restarts(restarts),
                    on_ready=lambda event: show_ready(
                        console, event.tier, ports=event.ports, seconds=event.seconds
                    ),
                    on_restart=lambda error, pause_s: console.print(
                        f"{error}; starting it again in {pause_s:.0f} s",
                        style="red",
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    ),
                )
        except StopRequested:
            console.print("stopped", style="dim")


def _show_doors(console: Console, stack: LocalStack, seconds: float) -> None:
    page = stack.http_url.removesuffix("v1")
    console.print(
        f"[bold]ready[/bold] in {seconds:.1f} s: {stack.http_url}"
        f"  [bold]page[/bold] {page}"
        f"  [dim]gRPC {stack.addresses['gateway']}  Ctrl-C stops[/dim]",
        highlight=False,
        soft_wrap=True,
    )


def tier_flags(
    assignments: Sequence[str],
    *,
    threads: int | None,
    model_name: str | None = None,
    config: Path | None = None,
) -> dict[str, list[str]]:
    """Further flags by tier, from `--set TIER.NAME=VALUE`, options of their own, and a file.

    Raises:
        CommandError: an assignment of another form, or to an unknown tier; see `check_config`.
    """
    flags: dict[str, list[str]] = {tier: [] for tier in TIERS}
    if config is not None:
        check_config(config)
        for tier in TIERS:
            flags[tier].append(f"--config={config.resolve()}")
    if threads is not None:
        flags["vision"].append(f"--threads={threads}")
        flags["decoder"].append(f"--threads={threads}")
    if model_name is not None:
        flags["gateway"].append(f"--model-name={model_name}")
    for assignment in assignments:
        target, equals, value = assignment.partition("=")
        tier, dot, name = target.partition(".")
        if tier not in flags or not (equals and dot and name):
            hint = nearest(tier, TIERS) if equals and dot and name else ""
            raise CommandError(
                f"--set takes TIER.NAME=VALUE with a tier of {', '.join(TIERS)},"
                f" got {assignment!r}{hint}",
                exit_code=2,
            )
        flags[tier].append(f"--{name.replace('_', '-')}={value}")
    return flags


def check_config(file: Path) -> None:
    """Refuses what a file of settings for all three services cannot say.

    Names within the sections are the services' own to check.

    Raises:
        CommandError: it cannot be read, has no sections, or sets what this command sets.
    """
    try:
        found = settings_file.read(str(file))
        sections = {tier: settings_file.section(str(file), tier) for tier in TIERS}
    except SettingsFileError as error:
        raise CommandError(f"--config: {error}", exit_code=2) from error
    if found and not any(name in TIERS for name in found):
        wanted = ", ".join(f"[{tier}]" for tier in TIERS)
        raise CommandError(
            f"--config: {file} has none of the sections {wanted}, one for each service",
            exit_code=2,
        )
    for tier, names in sections.items():
        for name in names:
            if option := OWN[tier].get(name):
                raise CommandError(
                    f"--config: {name} of [{tier}] is set by tandem serve: {option}", exit_code=2
                )


def file_environment(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What of a file's gateway section this command must know, too: whether its door speaks TLS.

    Args:
        file: A file that `check_config` has passed.
        environ: This process's; what it says outdoes the file.
    """
    name = "GATEWAY_DOOR_CERTIFICATE"
    if file is None or name in environ:
        return {}
    certificate = settings_file.section(str(file), "gateway").get("door_certificate")
    return {} if certificate is None else {name: certificate}


def tier_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of `tandem serve TIER` as the service itself takes them.

    A bundle that comes first, as in `tandem serve BUNDLE`, is the service's `--bundle`.
    """
    if arguments and not arguments[0].startswith("-"):
        return [f"--bundle={arguments[0]}", *arguments[1:]]
    return list(arguments)
