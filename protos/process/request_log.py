"""One log line per request, when it ends: the same words on every tier.

    request id=abc tier=gateway door=http outcome=stop total_ms=12.3 prompt_tokens=40 ...

What is counted of a request is counted at the same moment, by the tier's metrics, and where it is
traced its span ends.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from protos.process import tracing
from protos.process.logs import REQUEST
from protos.process.metrics import TierMetrics
from protos.process.tracing import UNTRACED, Span, Value
from protos.wire.errors import Reason, ServiceError

logger = logging.getLogger(__name__)

MAX_ID_CHARS = 64

_SERVER_FAULTS = (Reason.INTERNAL, Reason.DATA_LOSS, Reason.MODEL_MISMATCH)

# Figures that a request's span tells, by the names they have there; of others it is silent.
_ATTRIBUTES = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "image_tokens": "tandem.image_tokens",
    "feature_bytes": "tandem.embedding_bytes",
    "frames": "tandem.frames",
    "door": "tandem.door",
}


class RequestRecord:
    """What is known about a request when it ends; never its text, images or tokens.

    Args:
        tier: "gateway", "vision" or "decoder".
        request_id: As the client or the tier before chose it.
        figures: Counts (`prompt_tokens`, `completion_tokens`, `cached_tokens`, `image_tokens`,
            `bytes`), times (`first_token_ms`, `queue_ms`) and short words (`door`).
        metrics: Told when the request has ended.
        span: Ends when the request does.
    """

    def __init__(
        self,
        tier: str,
        request_id: str = "-",
        *,
        metrics: TierMetrics | None = None,
        span: Span = UNTRACED,
        **figures: float | int | str,
    ) -> None:
        self.request_id = request_id
        self.span = span
        self._tier = tier
        self._metrics = metrics
        self._started_s = time.monotonic()
        self._figures = dict(figures)
        self._outcome: str | Reason = "unfinished"

    def note(self, **figures: float | int | str) -> None:
        """Adds figures to the line; the last value of a name counts."""
        self._figures.update(figures)

    def took(self, **parts_ms: float) -> None:
        """Adds the times of parts that ran one after the other and have just ended, milliseconds.

        `queue=1.0` becomes the figure `queue_ms` and a span of that name.
        """
        self.note(**{f"{name}_ms": took_ms for name, took_ms in parts_ms.items()})
        self.span.took(**parts_ms)

    def first_token(self) -> None:
        """The first token is there now; later calls change nothing."""
        if "first_token_ms" not in self._figures:
            self._figures["first_token_ms"] = self._elapsed_ms()

    def ended(self, outcome: str) -> None:
        """The request was answered: "stop", "length", or "ok" where there is no such reason."""
        self._outcome = outcome

    def failed(self, reason: Reason) -> None:
        """The request ended with an error."""
        self._outcome = reason

    def log(self) -> None:
        """Writes the line, counts the request and ends its span.

        A client's own mistake is no warning.
        """
        outcome = self._outcome.value if isinstance(self._outcome, Reason) else self._outcome
        told: dict[str, float | int | str] = {
            "id": self.request_id[:MAX_ID_CHARS],
            "tier": self._tier,
            "outcome": outcome,
            "total_ms": self._elapsed_ms(),
            **self._figures,
        }
        logger.log(
            logging.WARNING if self._outcome in _SERVER_FAULTS else logging.INFO,
            "request %s",
            " ".join(f"{name}={_shown(value)}" for name, value in told.items()),
            extra={REQUEST: {name: _rounded(value) for name, value in told.items()}},
        )
        if self._metrics is not None:
            self._metrics.ended(self._outcome, self._elapsed_ms() / 1e3, self._figures)
        if self.span.is_traced:
            self._end_span()

    def _end_span(self) -> None:
        told: dict[str, Value] = {"tandem.request_id": self.request_id[:MAX_ID_CHARS]}
        for figure, name in _ATTRIBUTES.items():
            if figure in self._figures:
                told[name] = self._figures[figure]
        first_ms = self._figures.get("first_token_ms")
        if isinstance(first_ms, float):
            told["gen_ai.response.time_to_first_chunk"] = first_ms / 1e3
        failure = self._outcome.value if isinstance(self._outcome, Reason) else None
        if failure is None and "completion_tokens" in self._figures:
            told["gen_ai.response.finish_reasons"] = (str(self._outcome),)
        self.span.note(told)
        self.span.end(failure)

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._started_s) * 1e3


@contextmanager
def recording(
    tier: str,
    request_id: str = "-",
    *,
    metrics: TierMetrics | None = None,
    method: str = "",
    traceparent: str | None = None,
    **figures: float | int | str,
) -> Iterator[RequestRecord]:
    """Logs, counts and, where that is on, traces one request until the block is left.

    Source of what counts as failure: the exception that leaves the block.

    Args:
        tier: "gateway", "vision" or "decoder".
        request_id: As the client or the tier before chose it.
        metrics: Told when the request has ended.
        method: Names its span.
        traceparent: What came with it under that name.
        figures: Counts, times and short words of its line.
    """
    span = tracing.arrived(method or tier, traceparent)
    record = RequestRecord(tier, request_id, metrics=metrics, span=span, **figures)
    try:
        yield record
    except ServiceError as error:
        record.failed(error.reason)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        record.failed(Reason.CANCELLED)
        raise
    except BaseException:  # Only named for the line; the edges answer.
        record.failed(Reason.INTERNAL)
        raise
    finally:
        record.log()
        tracing.left(span)


def _rounded(value: float | int | str) -> float | int | str:
    return round(value, 1) if isinstance(value, float) else value


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    # An id comes from outside: it must not be able to add words or lines to a log.
    return text if text.isprintable() and " " not in text else repr(text)
