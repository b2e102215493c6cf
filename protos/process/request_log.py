"""One log line per request, when it ends: the same words on every tier.

    request id=abc tier=gateway door=http outcome=stop total_ms=12.3 prompt_tokens=40 ...

What is counted of a request is counted at the same moment, by the tier's metrics.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from protos.process.logs import REQUEST
from protos.process.metrics import TierMetrics
from protos.wire.errors import Reason, ServiceError

logger = logging.getLogger(__name__)

MAX_ID_CHARS = 64

_SERVER_FAULTS = (Reason.INTERNAL, Reason.DATA_LOSS, Reason.MODEL_MISMATCH)


class RequestRecord:
    """What is known about a request when it ends; never its text, images or tokens.

    Args:
        tier: "gateway", "vision" or "decoder".
        request_id: As the client or the tier before chose it.
        figures: Counts (`prompt_tokens`, `completion_tokens`, `cached_tokens`, `image_tokens`,
            `bytes`), times (`first_token_ms`, `queue_ms`) and short words (`door`).
        metrics: Told when the request has ended.
    """

    def __init__(
        self,
        tier: str,
        request_id: str = "-",
        *,
        metrics: TierMetrics | None = None,
        **figures: float | int | str,
    ) -> None:
        self.request_id = request_id
        self._tier = tier
        self._metrics = metrics
        self._started_s = time.monotonic()
        self._figures = dict(figures)
        self._outcome: str | Reason = "unfinished"

    def note(self, **figures: float | int | str) -> None:
        """Adds figures to the line; the last value of a name counts."""
        self._figures.update(figures)

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
        """Writes the line and counts the request. A client's own mistake is no warning."""
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

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self._started_s) * 1e3


@contextmanager
def recording(
    tier: str,
    request_id: str = "-",
    *,
    metrics: TierMetrics | None = None,
    **figures: float | int | str,
) -> Iterator[RequestRecord]:
    """Logs and counts one request when the block is left, however it is left.

    Source of what counts as failure: the exception that leaves the block.
    """
    record = RequestRecord(tier, request_id, metrics=metrics, **figures)
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


def _rounded(value: float | int | str) -> float | int | str:
    return round(value, 1) if isinstance(value, float) else value


def _shown(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    # An id comes from outside: it must not be able to add words or lines to a log.
    return text if text.isprintable() and " " not in text else repr(text)
