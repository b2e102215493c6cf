"""Traces of requests, with the names that OpenTelemetry gives them; off unless `exporting`.

A door opens a request's span (`arrived`); what is started for the request inherits it and adds
spans below it, and `metadata` carries it to the next service. A request is traced where its
caller's `traceparent` says so, and not where that says no; without one, by chance.

Spans hold names, counts, times and reasons of errors: never words, keys or addresses. So a
caller's `tracestate`, which may hold anything, goes no further.
"""

import asyncio
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import Reason, ServiceError

TRACEPARENT = "traceparent"

# Version, trace id, span id, flags; versions to come may add more behind them.
_TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_SAMPLED = 0x01

Value = str | int | float | tuple[str, ...]


def _new_id(bits: int) -> int:
    return random.getrandbits(bits) or 1


class Kind(IntEnum):
    """What a span stands for; numbers are those of OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Parent(NamedTuple):
    """What a `traceparent` says; see https://www.w3.org/TR/trace-context/."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def of(cls, header: str | None) -> "Parent | None":
        """Reads one; None where there is none, or what came is none."""
        found = _TRACEPARENT.fullmatch(header or "")
        if found is None:
            return None
        version, trace_id, span_id = found[1], int(found[2], 16), int(found[3], 16)
        if version == "ff" or (version == "00" and found[5]) or not (trace_id and span_id):
            return None
        return cls(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED))


Sink = Callable[["Span"], None]


class Span:
    """One piece of a request's time. Times are Unix nanoseconds, ids as large as W3C's.

    Attributes:
        failure: Reason of the error it ended with; None: it went well.
    """

    __slots__ = (
        *("_sink", "attributes", "end_ns", "failure", "kind", "name", "parent_id", "span_id"),
        *("start_ns", "trace_id"),
    )
    is_traced = True

    def __init__(
        self, sink: Sink, name: str, kind: Kind, *, trace_id: int, parent_id: int, start_ns: int
    ) -> None:
        self._sink = sink
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = _new_id(64)
        self.parent_id = parent_id  # 0: none
        self.start_ns = start_ns
        self.end_ns = 0
        self.attributes: dict[str, Value] = {}
        self.failure: str | None = None

    def note(self, attributes: dict[str, Value]) -> None:
        """Adds attributes; the last value of a name counts."""
        self.attributes.update(attributes)

    def child(self, name: str, kind: Kind = Kind.INTERNAL, *, start_ns: int = 0) -> "Span":
        """A span below this one, which begins now or at `start_ns`."""
        return Span(
            self._sink,
            name,
            kind,
            trace_id=self.trace_id,
            parent_id=self.span_id,
            start_ns=start_ns or time.time_ns(),
        )

    def took(self, **parts_ms: float) -> None:
        """Adds children that ran one after the other and have just ended, milliseconds each."""
        end_ns = time.time_ns()
        start_ns = end_ns - sum(int(took_ms * 1e6) for took_ms in parts_ms.values())
        for name, took_ms in parts_ms.items():
            part = self.child(name, start_ns=start_ns)
            start_ns += int(took_ms * 1e6)
            part.end(end_ns=start_ns)

    def end(self, failure: str | None = None, *, end_ns: int = 0) -> None:
        """Ends it now or at `end_ns`, and hands it over."""
        self.failure = failure
        self.end_ns = max(end_ns or time.time_ns(), self.start_ns)  # clocks are put back
        self._sink(self)

    def close(self) -> None:
        """Ends it in a `finally`: with the error that leaves the block, if one does."""
        error = sys.exception()
        self.end(None if error is None else reason_of(error))

    @property
    def traceparent(self) -> str:
        """What carries it to another service."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


class _Untraced(Span):
    """Stands for a span where there is none."""

    __slots__ = ()
    is_traced = False

    def __init__(self) -> None:
        super().__init__(lambda _: None, "", Kind.INTERNAL, trace_id=0, parent_id=0, start_ns=1)

    def note(self, attributes: dict[str, Value]) -> None:
        pass

    def child(self, name: str, kind: Kind = Kind.INTERNAL, *, start_ns: int = 0) -> Span:
        return self

    def took(self, **parts_ms: float) -> None:
        pass

    def end(self, failure: str | None = None, *, end_ns: int = 0) -> None:
        pass

    @property
    def traceparent(self) -> str:
        """Tells the next service not to begin a trace of its own for this request."""
        return f"00-{_new_id(128):032x}-{_new_id(64):016x}-00"


UNTRACED = _Untraced()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tracing:
    sink: Sink
    ratio: float


# Of the whole process, as its logging is: set while its main, or a test, exports.
_process: _Tracing | None = None
# Of the request at work, or of the part of it that is.
_current: ContextVar[Span] = ContextVar("span", default=UNTRACED)


@contextmanager
def exporting(sink: Sink | None, *, ratio: float) -> Iterator[None]:
    """Traces requests while the block runs.

    Args:
        sink: Takes spans as they end, from any thread; None: nothing is traced.
        ratio: Share of requests without a `traceparent` that is traced, 0 to 1.
    """
    global _process
    before, _process = _process, None if sink is None else _Tracing(sink=sink, ratio=ratio)
    try:
        yield
    finally:
        _process = before


def arrived(name: str, traceparent: str | None) -> Span:
    """The span of a request that has just come, which is now the current one."""
    if _process is None:
        return UNTRACED
    span: Span = UNTRACED
    parent = Parent.of(traceparent)
    if random.random() < _process.ratio if parent is None else parent.sampled:
        span = Span(
            _process.sink,
            name,
            Kind.SERVER,
            trace_id=_new_id(128) if parent is None else parent.trace_id,
            parent_id=0 if parent is None else parent.span_id,
            start_ns=time.time_ns(),
        )
    _current.set(span)
    return span


def left(span: Span) -> None:
    """What comes now in this task belongs to no request; `span` was the one's that ended."""
    if span.is_traced:
        _current.set(UNTRACED)


def current() -> Span:
    """The span of the request at work, or of the part of it that is."""
    return _current.get()


@contextmanager
def inside(name: str, kind: Kind = Kind.CLIENT) -> Iterator[Span]:
    """A part of the request at work, which is the current span while the block runs.

    A task of its own runs the block, so that what goes on beside it is not taken for a part of it.
    """
    outer = _current.get()
    span = outer.child(name, kind)
    _current.set(span)
    try:
        yield span
    finally:
        _current.set(outer)
        span.close()


def past(name: str, since_s: float) -> None:
    """A part of the request at work that ends now and began at `time.monotonic()` seconds."""
    span = _current.get()
    if span.is_traced:
        span.took(**{name: (time.monotonic() - since_s) * 1e3})


def metadata(request_id: str, span: Span | None = None) -> tuple[tuple[str, str], ...]:
    """What a call to the next service carries: the request's id, and its span where we trace.

    Args:
        request_id: Of the request.
        span: The call's own; the current one where None.
    """
    if _process is None:
        return ((REQUEST_ID_KEY, request_id),)
    within = _current.get() if span is None else span
    return ((REQUEST_ID_KEY, request_id), (TRACEPARENT, within.traceparent))


def exemplar() -> dict[str, str] | None:
    """Labels that lead from a measurement of the request at work to its trace."""
    span = _current.get()
    return {"trace_id": f"{span.trace_id:032x}"} if span.is_traced else None


def reason_of(error: BaseException) -> str:
    """What a span says of an error."""
    if isinstance(error, ServiceError):
        return error.reason.value
    is_cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
    return (Reason.CANCELLED if is_cancelled else Reason.INTERNAL).value
