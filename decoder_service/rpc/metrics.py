"""What a decoder process tells Prometheus."""

from collections.abc import Callable

from decoder_service.cache.memory import MemoryPlan
from decoder_service.engine.engine import Load
from protos.process.metrics import REQUEST_SECONDS, Figures, TierMetrics, seconds_of
from protos.wire.errors import Reason


class DecoderMetrics(TierMetrics):
    """Metrics of one decoder process.

    Args:
        load: How busy its engine is.
        plan: How much it could hold.
    """

    def __init__(self, load: Callable[[], Load], plan: MemoryPlan) -> None:
        super().__init__("decoder")
        self._prompt_tokens = self.counter(
            "tandem:decoder_prompt_tokens", "Tokens of prompts, cached ones included."
        )
        self._cached_tokens = self.counter(
            "tandem:decoder_cached_tokens", "Tokens of prompts whose KV was there already."
        )
        self._tokens = self.counter("tandem:decoder_generation_tokens", "Generated tokens.")
        self._queue = self.histogram(
            "tandem:decoder_queue_seconds",
            "From arrival to the first prefill chunk, seconds.",
            REQUEST_SECONDS,
        )
        gauges: dict[str, tuple[str, Callable[[Load], float]]] = {
            "sequences_running": ("Sequences that hold a slot.", lambda now: now.running_count),
            "sequences_waiting": ("Sequences waiting for one.", lambda now: now.waiting_count),
            "kv_tokens": ("Tokens whose KV is held.", lambda now: now.kv_token_count),
            "kv_usage": (
                "Share of the KV cache in use, 0 to 1.",
                lambda now: now.kv_token_count / plan.kv_tokens,
            ),
            "cached_prefix_tokens": (
                "Tokens of ended sequences whose KV is kept.",
                lambda now: now.cached_token_count,
            ),
            "preemptions": (
                "Sequences that lost their slot to a more urgent one, since the start.",
                lambda now: now.preemption_count,
            ),
        }
        for name, (text, of_load) in gauges.items():
            self.gauge(f"tandem:decoder_{name}", text, _reader(load, of_load))
        self.gauge("tandem:decoder_slots", "Slots in total.", lambda: plan.max_sequences)

    def ended(self, outcome: str | Reason, seconds: float, figures: Figures) -> None:
        """A sequence ended."""
        super().ended(outcome, seconds, figures)
        self._prompt_tokens.inc(float(figures.get("prompt_tokens", 0)))
        self._cached_tokens.inc(float(figures.get("cached_tokens", 0)))
        whole, resumed = figures.get("completion_tokens", 0), figures.get("resumed_tokens", 0)
        self._tokens.inc(max(0.0, float(whole) - float(resumed)))
        queue_s = seconds_of(figures, "queue_ms")
        if queue_s is not None:
            self._queue.observe(queue_s)


def _reader(load: Callable[[], Load], of_load: Callable[[Load], float]) -> Callable[[], float]:
    return lambda: float(of_load(load()))
