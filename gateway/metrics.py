"""What a gateway process tells Prometheus.

Families of whole answers have vLLM's names and buckets, so that its dashboards and alerts work;
the Gateway API inference extension reads its three gauges of load under them. What a split server
has besides begins with `tandem:`.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.access.admission import Admission
from gateway.access.keys import KeyRing
from gateway.fleet.router import Endpoint, State
from gateway.fleet.standing import Fault, Trust
from gateway.histograms import LoopHistogram
from gateway.tiers.decoder import DecoderClient
from gateway.tiers.embeddings import EmbeddingCache
from gateway.tiers.vision import VisionClient
from protos.process.metrics import (
    FIRST_TOKEN_SECONDS,
    REQUEST_SECONDS,
    TOKEN_COUNTS,
    TOKEN_SECONDS,
    Figures,
    TierMetrics,
    seconds_of,
)
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import Reason

# Times of an answer by the name they have in its timings: family, help, bounds.
_TIMES = {
    "queue_ms": ("vllm:request_queue_time_seconds", "Waiting for a slot.", REQUEST_SECONDS),
    "prefill_ms": ("vllm:request_prefill_time_seconds", "Prefill.", REQUEST_SECONDS),
    "decode_ms": ("vllm:request_decode_time_seconds", "First to last token.", REQUEST_SECONDS),
    "prepare_ms": (
        "tandem:gateway_prepare_seconds",
        "Template, tokenization and splicing.",
        FIRST_TOKEN_SECONDS,
    ),
    "preprocess_ms": (
        "tandem:gateway_preprocess_seconds",
        "Decoding images and making patches, slowest image.",
        FIRST_TOKEN_SECONDS,
    ),
    "encode_ms": (
        "tandem:gateway_encode_seconds",
        "Vision tower, slowest image.",
        FIRST_TOKEN_SECONDS,
    ),
    "transfer_ms": (
        "tandem:gateway_transfer_seconds",
        "Moving features from vision tier to decoder beyond the above.",
        FIRST_TOKEN_SECONDS,
    ),
}
_OF_IMAGES = ("preprocess_ms", "encode_ms", "transfer_ms")

# The Gateway API inference extension's three, summed or averaged over a gateway's decoders.
_LOADS: dict[str, tuple[str, Callable[[list[Endpoint]], float]]] = {
    "vllm:num_requests_running": (
        "Sequences that hold a slot of a decoder.",
        lambda decoders: sum(decoder.running for decoder in decoders),
    ),
    "vllm:num_requests_waiting": (
        "Sequences waiting for one.",
        lambda decoders: sum(decoder.waiting for decoder in decoders),
    ),
    "vllm:kv_cache_usage_perc": (
        "Share of the decoders' KV cache in use, 0 to 1.",
        lambda decoders: sum(each.kv_usage for each in decoders) / max(1, len(decoders)),
    ),
}


# Of an address: what the last look found; of one that serves, also whether it gets calls.
_CONDITIONS = (*State, Trust.EJECTED, Trust.TRIAL)


class GatewayMetrics(TierMetrics):
    """Metrics of one gateway process.

    Args:
        model: Its model's name, a label of vLLM's families.
    """

    def __init__(self, model: str) -> None:
        super().__init__("gateway")
        self._model = model
        self._successes = self.counter(
            "vllm:request_success", "Answers.", "model_name", "finished_reason"
        )
        self._prompt_tokens = self._count("prompt_tokens", "Tokens of prompts.")
        self._tokens = self._count("generation_tokens", "Generated tokens.")
        self._queried = self._count("prefix_cache_queries", "Tokens of prompts looked up.")
        self._cached = self._count("prefix_cache_hits", "Those whose KV was there already.")
        self._prompt_sizes = self._sizes("request_prompt_tokens", TOKEN_COUNTS)
        self._answer_sizes = self._sizes("request_generation_tokens", TOKEN_COUNTS)
        self._first = self._sizes("time_to_first_token_seconds", FIRST_TOKEN_SECONDS)
        self._between = self._sizes("inter_token_latency_seconds", TOKEN_SECONDS)
        self._whole = self._sizes("e2e_request_latency_seconds", REQUEST_SECONDS)
        self._times = {name: self._of_answer(*of) for name, of in _TIMES.items()}
        self._images = self.counter("tandem:gateway_images", "Images of admitted prompts.")
        self._needed = self.counter(
            "tandem:gateway_images_needed",
            "Those whose features a decoder needed; it had the others in its prefix cache.",
        )
        self._moves = self.counter(
            "tandem:gateway_moves", "Answers moved from one decoder to another.", "reason"
        )

    def watch(self, admission: Admission, *, vision: VisionClient, decoder: DecoderClient) -> None:
        """Adds what is read when it is asked for: requests at work, and how the tiers are."""
        self.gauge(
            "tandem:gateway_requests", "Requests at work.", lambda: float(admission.in_flight)
        )
        self.gauge(
            "tandem:gateway_request_bytes",
            "Bytes they hold: bodies and fetched files.",
            lambda: float(admission.held_bytes),
        )
        self.registry.register(_Tiers(self._model, vision=vision, decoder=decoder))

    def watch_keys(self, keys: KeyRing) -> None:
        """Adds what each key has used, read when it is asked for."""
        self.registry.register(_Keys(keys))

    def watch_embeddings(self, cache: EmbeddingCache) -> None:
        """Adds what is read of the features that are kept."""
        self.gauge(
            "tandem:gateway_embedding_cache_bytes",
            "Bytes of features kept, or being encoded to be kept.",
            lambda: float(cache.size_bytes),
        )
        self.gauge(
            "tandem:gateway_embedding_cache_entries",
            "Images and pieces of videos whose features are kept.",
            lambda: float(len(cache)),
        )
        self.registry.register(_EmbeddingCounts(cache))

    def ended(self, outcome: str | Reason, seconds: float, figures: Figures) -> None:
        """A request ended; answered ones count among vLLM's families."""
        super().ended(outcome, seconds, figures)
        tokens = float(figures.get("completion_tokens", 0))
        self._tokens.inc(tokens)
        first_s = seconds_of(figures, "first_token_ms")
        if first_s is not None:
            self._first.observe(first_s)
        if isinstance(outcome, Reason) or "completion_tokens" not in figures:
            return
        prompt = float(figures["prompt_tokens"])
        self._successes.labels(self._model, outcome).inc()
        self._prompt_tokens.inc(prompt)
        self._queried.inc(prompt)
        self._cached.inc(float(figures.get("cached_tokens", 0)))
        self._prompt_sizes.observe(prompt)
        self._answer_sizes.observe(tokens)
        self._whole.observe(seconds)

    def choice_ended(self, timings: gateway_pb2.ChatTimings) -> None:
        """One choice of an answer ended; times of images count where one was encoded."""
        for name, times in self._times.items():
            if timings.encode_ms > 0 or name not in _OF_IMAGES:
                times.observe(getattr(timings, name) / 1e3)

    def tokens_came(self, count: int, seconds: float) -> None:
        """So many tokens came together, so long after the one before them; they share that time."""
        self._between.observe(seconds / count, count)

    def admitted(self, *, images: int, needed: int) -> None:
        """A decoder took a prompt with so many images, and needs the features of some."""
        self._images.inc(images)
        self._needed.inc(needed)

    def moved(self, reason: Reason) -> None:
        """An answer goes on at another decoder, because of how the last one was lost."""
        self._moves.labels(reason.value).inc()

    def _count(self, name: str, text: str) -> Counter:
        return self.counter(f"vllm:{name}", text, "model_name").labels(self._model)

    def _sizes(self, name: str, buckets: tuple[float, ...]) -> LoopHistogram:
        return self._of_answer(f"vllm:{name}", f"{name.replace('_', ' ')}.".capitalize(), buckets)

    def _of_answer(self, name: str, text: str, buckets: tuple[float, ...]) -> LoopHistogram:
        labels = {"model_name": self._model} if name.startswith("vllm:") else {}
        histogram = LoopHistogram(name, text, buckets, labels)
        self.registry.register(histogram)
        return histogram


class TokenClock:
    """Times between the tokens of one choice; tokens that come together share theirs."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._last_s: float | None = None

    def came(self, tokens: int) -> None:
        """So many tokens came now."""
        now_s, last_s = time.monotonic(), self._last_s
        if last_s is not None and tokens:
            self._metrics.tokens_came(tokens, now_s - last_s)
        self._last_s = now_s


class _Keys(Collector):
    """What the keys that are accepted now have used, by their names.

    A key's series end with it, so that there are never more than keys.
    """

    _COUNTS: Mapping[str, str] = {
        "requests": "Requests that got a place.",
        "refused": "Requests refused because of a limit by the minute.",
        "prompt_tokens": "Tokens of prompts.",
        "image_tokens": "Those of images and videos.",
        "completion_tokens": "Generated tokens.",
    }

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def collect(self) -> Iterable[Metric]:
        accounts = self._keys.accounts
        for name, text in self._COUNTS.items():
            family = CounterMetricFamily(f"tandem:gateway_key_{name}", text, labels=["key"])
            for account in accounts:
                family.add_metric([account.name], float(getattr(account.usage, name)))
            yield family
        at_work = GaugeMetricFamily(
            "tandem:gateway_key_in_flight", "Requests at work.", labels=["key"]
        )
        for account in accounts:
            at_work.add_metric([account.name], float(account.usage.in_flight))
        yield at_work


class _EmbeddingCounts(Collector):
    """How often features were there, as the cache counts it."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "tandem:gateway_embedding_cache_hits",
            "Times that features were kept, or being encoded already.",
            value=self._cache.hits,
        )
        yield CounterMetricFamily(
            "tandem:gateway_embedding_cache_misses",
            "Times that they had to be encoded.",
            value=self._cache.misses,
        )


class _Tiers(Collector):
    """What the last look at every address found, and what was tried again."""

    def __init__(self, model: str, *, vision: VisionClient, decoder: DecoderClient) -> None:
        self._model = model
        self._vision = vision
        self._decoder = decoder

    def collect(self) -> Iterable[Metric]:
        endpoints = self._decoder.router.endpoints
        decoders = [each for each in endpoints if each.state is State.SERVING]
        for name, (text, of_decoders) in _LOADS.items():
            family = GaugeMetricFamily(name, text, labels=["model_name"])
            family.add_metric([self._model], float(of_decoders(decoders)))
            yield family
        addresses = GaugeMetricFamily(
            "tandem:gateway_tier_addresses",
            "Addresses of a tier by what the last look found; ejected and tried ones apart.",
            labels=["tier", "state"],
        )
        for router in (self._vision.router, self._decoder.router):
            conditions = [endpoint.condition for endpoint in router.endpoints]
            for name in _CONDITIONS:
                addresses.add_metric([router.tier, name], float(conditions.count(name)))
        yield addresses
        yield CounterMetricFamily(
            "tandem:gateway_encode_retries",
            "Calls to the vision tier made again, at another address where there was one.",
            value=self._vision.retries.total(),
        )
        yield from self._faults()

    def _faults(self) -> Iterable[Metric]:
        ejections = CounterMetricFamily(
            "tandem:gateway_ejections",
            "Times an address was set aside, by what it did.",
            labels=["tier", "reason"],
        )
        retries = CounterMetricFamily(
            "tandem:gateway_retries",
            "Calls made again, by how the first attempt went.",
            labels=["tier", "reason"],
        )
        for client in (self._vision, self._decoder):
            tier = client.router.tier
            for fault in Fault:
                ejections.add_metric([tier, fault.value], float(client.ejector.ejections[fault]))
                retries.add_metric([tier, fault.value], float(client.retries[fault]))
        yield ejections
        yield retries
