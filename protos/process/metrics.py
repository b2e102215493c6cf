"""Prometheus metrics of one service process: what requests leave behind, and what is read on ask.

A tier's own families are in its package; here is what all of them share. Labels are bounded: error
reasons, finish reasons, states and the one model's name, never a word of a client.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from protos.process import tracing
from protos.process.certificates import CertificateEnds
from protos.process.server import bind
from protos.wire.credentials import Credentials
from protos.wire.errors import Reason

# Bounds of buckets, seconds. Those of whole requests and of first tokens are vLLM's.
REQUEST_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_SECONDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
TOKEN_COUNTS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))

_OPENMETRICS = "application/openmetrics-text"

Figures = Mapping[str, float | int | str]


class TierMetrics:
    """The metrics of one tier's process; a tier adds its own families to `registry`.

    Args:
        tier: "gateway", "vision" or "decoder"; the prefix of this class's families.
    """

    def __init__(self, tier: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._tier = tier
        self._failures = self.counter(
            f"tandem:{tier}_request_failures", "Requests that ended with an error.", "reason"
        )
        self._seconds = self.histogram(
            f"tandem:{tier}_request_seconds",
            "From a request's arrival to its end, seconds.",
            REQUEST_SECONDS,
        )

    def ended(self, outcome: "str | Reason", seconds: float, figures: Figures) -> None:
        """A request ended; `outcome` and `figures` are those of its log line."""
        self._seconds.observe(seconds)
        if isinstance(outcome, Reason):
            self._failures.labels(outcome.value).inc()

    def watch_certificates(self, shown: Sequence[Credentials]) -> None:
        """Adds how long the certificates that this process shows are still valid."""
        self.registry.register(CertificateEnds(self._tier, shown))

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A new counter; `_total` is added to its name."""
        return Counter(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        """A new histogram with these upper bounds, whose exemplars lead to traces."""
        return _TracedHistogram(name, text, labels, buckets=buckets, registry=self.registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A new gauge, read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Every metric as text, and that text's media type.

        Args:
            accept: The `Accept` header: OpenMetrics where it is asked for, else Prometheus' own.
        """
        if _OPENMETRICS in accept:
            # As they are: the library would write the colons of samples, not of their help, as
            # underscores.
            write: Any = openmetrics.generate_latest  # untyped
            text: bytes = write(self.registry, escaping=openmetrics.ALLOWUTF8)
            return text, f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    @contextmanager
    def serving(self, host: str, port: int | None) -> Iterator[int | None]:
        """Answers GET /metrics on a port of its own while the block runs, without a key.

        Args:
            host: IPv4 or IPv6 address of this machine, or a name.
            port: 0 picks a free one, None serves none; yields the one that was taken.

        Raises:
            BindError: the process cannot listen there.
        """
        if port is None:
            yield None
            return
        server = _Server(bind(host, port), self.exposition)
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _TracedHistogram(Histogram):
    """Keeps with each bucket the trace of a request that fell into it."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        super().observe(amount, exemplar or tracing.exemplar())


class _Server(ThreadingHTTPServer):
    """Answers GET /metrics, each scrape in a thread of its own."""

    daemon_threads = True

    def __init__(
        self, listening: socket.socket, exposition: Callable[[str], tuple[bytes, str]]
    ) -> None:
        address = listening.getsockname()
        super().__init__(address[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_port = address[1]
        self.exposition = exposition


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0  # of a scraper that says nothing
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        text, media_type = self.server.exposition(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


def seconds_of(figures: Figures, name: str) -> float | None:
    """A time of a log line, in milliseconds there; None where it was not noted."""
    value: Any = figures.get(name)
    return None if value is None else value / 1e3
