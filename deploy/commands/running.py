"""A stack that runs while a command needs it: signals, progress lines, the end."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from rich.console import Console

from deploy.client import ChatClient
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.paths import log_dir
from deploy.terminal.screen import echo_logs, show_ready, show_starting


class StopRequested(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turns the signals that end a program into `StopRequested` in the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _raise_stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_stop(number: int, frame: FrameType | None) -> NoReturn:
    raise StopRequested(number)


@contextmanager
def running_stack(
    console: Console, settings: StackSettings, *, verbose: bool = False, quiet: bool = False
) -> Iterator[LocalStack]:
    """Starts a stack, shows each tier's readiness, stops it at the end whatever happens.

    A second signal while the services drain ends them, and streams with an error event.

    Raises:
        LaunchError: see `LocalStack.start`.
    """
    stack = LocalStack(
        _with_logs(settings, os.environ), echo=echo_logs(console) if verbose else None
    )
    try:
        if quiet:
            with console.status("starting the services"):
                stack.start()
        else:
            stack.start(
                lambda event: show_ready(
                    console, event.tier, ports=event.ports, seconds=event.seconds
                ),
                lambda event: show_starting(
                    console, event.tier, seconds=event.seconds, doing=event.doing
                ),
            )
        yield stack
        with console.status("stopping the services"):  # Ray takes its seconds
            _stop(stack)
    except StopRequested:
        _stop(stack, lambda: console.print("stopping", style="dim"))
        raise
    finally:
        _stop(stack)


@contextmanager
def own_stack(
    console: Console, settings: StackSettings, *, verbose: bool = False, quiet: bool = False
) -> Iterator[tuple[LocalStack, ChatClient]]:
    """A stack for this command alone, and a client of its gateway.

    It has a key of its own, which takes the place of one in the environment (GATEWAY_API_KEY):
    that one is meant for servers, and this command would ask without it.

    Raises:
        LaunchError: see `LocalStack.start`.
    """
    key = secrets.token_urlsafe()
    gateway = {
        **settings.environment.get("gateway", {}),
        # Nor does it show a certificate that is meant for others.
        **{f"GATEWAY_DOOR_{name}": "" for name in ("CERTIFICATE", "KEY", "AUTHORITY")},
        "GATEWAY_API_KEY": key,
    }
    private = replace(settings, environment={**settings.environment, "gateway": gateway})
    with (
        running_stack(console, private, verbose=verbose, quiet=quiet) as stack,
        ChatClient(stack.addresses["gateway"], api_key=key) as client,
    ):
        yield stack, client


def _stop(stack: LocalStack, announce: Callable[[], None] = lambda: None) -> None:
    try:
        announce()
        stack.stop()
    except StopRequested:
        stack.stop(drain=False)


def _with_logs(settings: StackSettings, environ: Mapping[str, str]) -> StackSettings:
    if settings.log_dir is not None:
        return settings
    # Stacks on ports of the kernel's choice are short-lived and share one folder.
    return replace(settings, log_dir=log_dir(environ, http_port=settings.ports.http))
