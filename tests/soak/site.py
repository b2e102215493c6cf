"""The stack that is soaked: real services, Ray included, with caches that fill within minutes.

A cache that is still filling looks like a leak, so those that have a bound get a small one.
"""

import contextlib
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from tests.soak.census import Holding, census

KEYS = ("one-of-two", "two-of-two")
ROLES = {"gateway": "gateway", "decoder": "decoder", "vision": "front"}
FLAGS = {
    "decoder": (
        "--max-sequences=8",
        "--max-context=2048",
        "--kv-memory-mib=64",
        "--threads=1",
        "--grammar-cache-mib=4",
    ),
    "vision": ("--threads=1", "--object-store-mib=128"),
    "gateway": (
        "--embedding-cache-mib=16",
        "--max-stored-responses=100",
    ),
}
FIGURES = {
    "running": "tandem:decoder_sequences_running",
    "waiting": "tandem:decoder_sequences_waiting",
    "kv_tokens": "tandem:decoder_kv_tokens",
    "images": "tandem:vision_images",
}


class Site:
    """Running services; use as a context manager, in the main thread.

    Args:
        bundle: What they serve.
        logs: Folder of their logs.
        flags: By tier, after those of `FLAGS`, which they outdo.

    Attributes:
        url: Of the HTTP door, without a path.
        metrics: Port of each tier's metrics.
    """

    def __init__(
        self, bundle: Path, logs: Path, flags: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.metrics = dict(zip(ROLES, free_ports(len(ROLES)), strict=True))
        more = flags or {}
        flags = {
            tier: (*FLAGS[tier], f"--metrics-port={port}", *more.get(tier, ()))
            for tier, port in self.metrics.items()
        }
        self._stack = LocalStack(
            StackSettings(
                bundle=bundle,
                ports=ANY_FREE,
                flags=flags,
                log_dir=logs,
                environment={"gateway": {"GATEWAY_API_KEY": ",".join(KEYS)}},
            )
        )

    def __enter__(self) -> Self:
        self._stack.start()
        self.url = self._stack.http_url.removesuffix("/v1")
        self._services = {role: self._stack.pid(tier) for tier, role in ROLES.items()}
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.stop()

    @property
    def addresses(self) -> Mapping[str, str]:
        """`HOST:PORT` of each gRPC server, by tier."""
        return self._stack.addresses

    @property
    def services(self) -> Mapping[str, int]:
        """Process id of each service, by role."""
        return self._services

    def holdings(self) -> dict[str, Holding]:
        """What the processes hold now, by role."""
        return census(self._services)

    def at_work(self) -> dict[str, float]:
        """What the tiers say of their work; all of it is 0 when nothing is asked."""
        found = dict.fromkeys(FIGURES, 0.0)
        names = {name: figure for figure, name in FIGURES.items()}
        for tier in ("decoder", "vision"):
            url = f"http://127.0.0.1:{self.metrics[tier]}/metrics"
            with urllib.request.urlopen(url, timeout=30.0) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name in names:
                        found[names[sample.name]] = sample.value
        return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
