"""Spans on their way to an OpenTelemetry collector: OTLP over gRPC, from a thread of its own.

Nothing that happens here touches a request: spans wait in a queue of bounded length, and what
finds it full, or is refused too often, is dropped and counted.

The queue and the encoding are ours because OpenTelemetry's SDK takes 86 us a span, which is more
than tracing may cost.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from protos.process.settings import SettingError
from protos.process.tracing import Sink, Span, Value
from protos.wire.channels import channel_options

logger = logging.getLogger(__name__)

MAX_QUEUED_SPANS = 8192  # some 10 MB
BATCH_SPANS = 128  # encoded in some 2 ms, for which requests may have to wait
PERIOD_S = 0.5
EXPORT_TIMEOUT_S = 5.0
TRIES = 3
PAUSE_S = 1.0  # before the second try, and twice as long before the third
FLUSH_S = 5.0  # how long a process that ends waits for its last spans

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

Send = Callable[[trace_service_pb2.ExportTraceServiceRequest], None]


def check_endpoint(endpoint: str) -> None:
    """Checks the setting `trace_endpoint`.

    Raises:
        SettingError: it is no URL of a collector.
    """
    _target(endpoint)


def _target(endpoint: str) -> tuple[str, bool]:
    """`host:port` of a collector, and whether it speaks TLS."""
    problem = f"trace_endpoint is {endpoint!r}, expected http://HOST:PORT or https://HOST:PORT"
    try:
        url = urlsplit(endpoint)
        known = url.scheme in ("http", "https") and url.hostname and url.port
    except ValueError as error:
        raise SettingError(problem) from error
    if not known or url.username or url.path not in ("", "/") or url.query or url.fragment:
        raise SettingError(problem)
    return url.netloc, url.scheme == "https"


class SpanQueue:
    """Takes spans from any thread, and sends them in batches from its own.

    Args:
        service: Name of this service in traces.
        send: Sends one batch; raises grpc.RpcError.
    """

    def __init__(self, service: str, send: Send, *, period_s: float = PERIOD_S) -> None:
        self._service = service
        self._send = send
        self._period_s = period_s
        self._spans: deque[Span] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self.dropped = 0
        self._is_failing = False

    def add(self, span: Span) -> None:
        """Takes a span that has ended, or drops it. Never waits."""
        if len(self._spans) < MAX_QUEUED_SPANS:
            self._spans.append(span)
        else:
            self.dropped += 1

    @contextmanager
    def sending(self, *, flush_s: float = FLUSH_S) -> Iterator[None]:
        """Sends while the block runs, and what is left after it, for at most `flush_s` seconds."""
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(flush_s)
            left = self.dropped + len(self._spans)
            if left:
                logger.warning("%d spans of traces were dropped", left)

    def _run(self) -> None:
        while not self._ending.wait(self._period_s):
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._spans:
            batch = [self._spans.popleft() for _ in range(min(BATCH_SPANS, len(self._spans)))]
            try:
                sent = self._sent(batch)
            except Exception:  # The thread has no caller: the next batch may fare better.
                logger.exception("spans could not be sent")
                sent = False
            if not sent:
                self.dropped += len(batch)

    def _sent(self, batch: Sequence[Span]) -> bool:
        request = to_otlp(self._service, batch)
        for attempt in range(TRIES):
            try:
                self._send(request)
            except grpc.RpcError as error:
                self._note(error.code() if isinstance(error, grpc.Call) else None)
                # A process that ends has no time for a collector that is not there.
                if self._ending.wait(0.0 if attempt + 1 == TRIES else PAUSE_S * 2**attempt):
                    return False
            else:
                self._note(None, failed=False)
                return True
        return False

    def _note(self, code: grpc.StatusCode | None, *, failed: bool = True) -> None:
        """Says once that the collector fails, and once that it is back."""
        if failed and not self._is_failing:
            name = "an unknown error" if code is None else code.name
            logger.warning("the collector at trace_endpoint answers %s", name)
        elif self._is_failing and not failed:
            logger.info("the collector at trace_endpoint takes spans again")
        self._is_failing = failed


@contextmanager
def otlp_sink(endpoint: str | None, service: str) -> Iterator[Sink | None]:
    """Where spans go that a collector is to have, while the block runs; it is flushed at the end.

    Args:
        endpoint: http://HOST:PORT, or https for TLS with the system's authorities; None: there is
            none, and nowhere to go.
        service: Name of this service in traces.
    """
    if endpoint is None:
        yield None
        return
    address, tls = _target(endpoint)
    options = channel_options()
    with (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
        if tls
        else grpc.insecure_channel(address, options)
    ) as channel:
        export: Any = channel.unary_unary(
            _METHOD,
            request_serializer=trace_service_pb2.ExportTraceServiceRequest.SerializeToString,
            response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
        )
        queue = SpanQueue(service, lambda batch: export(batch, timeout=EXPORT_TIMEOUT_S))
        with queue.sending():
            yield queue.add


def to_otlp(service: str, spans: Sequence[Span]) -> trace_service_pb2.ExportTraceServiceRequest:
    """A batch as a collector takes it."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    of_service = request.resource_spans.add()
    _set(of_service.resource.attributes, "service.name", service)
    scope = of_service.scope_spans.add()
    scope.scope.name = "tandem"
    for span in spans:
        _add(scope.spans, span)
    return request


def _add(messages: Any, span: Span) -> None:
    # Filled in place: messages that are made and copied take twice the time.
    message = messages.add(
        trace_id=span.trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        name=span.name,
        kind=span.kind,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
    )
    for name, value in span.attributes.items():
        _set(message.attributes, name, value)
    if span.failure is not None:
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        _set(message.attributes, "error.type", span.failure)


def _set(attributes: Any, name: str, value: Value) -> None:
    attribute = attributes.add()
    attribute.key = name
    if isinstance(value, str):
        attribute.value.string_value = value
    elif isinstance(value, bool):  # which is an int, too
        attribute.value.bool_value = value
    elif isinstance(value, int):
        attribute.value.int_value = value
    elif isinstance(value, float):
        attribute.value.double_value = value
    else:
        for each in value:
            attribute.value.array_value.values.add(string_value=each)
