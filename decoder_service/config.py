"""Settings of a decoder process."""

import os
from dataclasses import dataclass

from decoder_service.grammar.checks import GrammarLimits
from protos.process.security import HopSettings, check_hops
from protos.process.settings import MAX_PORT, check, setting
from protos.wire.channels import DECODER_METRICS_PORT, DECODER_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig(HopSettings):
    """Settings of one decoder process; environment names are DECODER_<FIELD>."""

    bundle: str = setting("folder of the bundle to serve")
    host: str = setting("address to listen on", default="127.0.0.1")
    port: int = setting(
        "gRPC port; 0 chooses a free one", default=DECODER_PORT, least=0, most=MAX_PORT
    )
    metrics_port: int | None = setting(
        f"port of Prometheus metrics, as {DECODER_METRICS_PORT}; 0 picks one; unset: none",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    threads: int | None = setting(
        "threads of one graph run; unset: all cores", default=None, least=1
    )
    max_sequences: int | None = setting(
        "sequences that run at once; unset: up to 16, as memory allows", default=None, least=1
    )
    max_context: int | None = setting(
        "most tokens (prompt and answer) of one sequence; unset: up to 32768, as the model"
        " and memory allow",
        default=None,
        least=2,
    )
    kv_memory_mib: int | None = setting(
        "most memory of the KV cache, MiB, of running and of ended sequences together; unset:"
        " half of what is free after loading",
        default=None,
        least=1,
    )
    kernels: str = setting(
        "what multiplies INT4 weights: tandem: Tandem's own operators; onnxruntime: ONNX Runtime's;"
        " auto: Tandem's where the bundle has such graphs and the processor runs them",
        default="auto",
        choices=("auto", "tandem", "onnxruntime"),
    )
    kv_dtype: str = setting(
        "what the KV cache holds: float32, or float16 in half the memory (Tandem's operators only);"
        " auto: float16 where Tandem's operators run",
        default="auto",
        choices=("auto", "float32", "float16"),
    )
    max_waiting: int = setting("sequences that may wait for a slot", default=64, least=0)
    prefill_chunk_tokens: int = setting(
        "most prompt tokens of a step while nothing decodes; a step cannot be cancelled, so it"
        " bounds how long a cancelled prompt holds its slot",
        default=256,
        least=1,
    )
    mixed_chunk_tokens: int = setting(
        "most prompt tokens of a step while sequences decode; fewer when measured run times say"
        " that their tokens would come too slowly",
        default=256,
        least=1,
    )
    speculation: str = setting(
        "auto: draft ahead from prompt and answer while one sequence decodes and drafts come"
        " true; off: never",
        default="auto",
        choices=("auto", "off"),
    )
    draft_tokens: int = setting("most tokens drafted ahead", default=8, least=1)
    # Longer than the gateway's request_deadline_s, within which it waits for encodings as long as
    # their patches may take: its clearer error comes first.
    features_timeout_s: float = setting(
        "longest pause of a client that still owes features, seconds", default=600.0, least=0.001
    )
    grammar_kib: int = setting(
        "longest schema or other grammar of a request, KiB", default=64, least=1
    )
    grammar_depth: int = setting("deepest nesting of a schema's JSON", default=32, least=1)
    grammar_compile_s: float = setting(
        "longest compiling of a grammar, seconds", default=2.0, least=0.001
    )
    grammar_cache_mib: int = setting(
        "most memory of compiled grammars kept, MiB", default=64, least=1
    )
    drain_timeout_s: float = setting(
        "how long running streams may end after SIGTERM, seconds", default=30.0, least=0
    )
    allow_logits: bool = setting("answer requests for raw logits (large)", default=False)
    reflection: bool = setting("answer gRPC reflection", default=False)

    def __post_init__(self) -> None:
        check(self)
        check_hops(self)

    @property
    def grammar_limits(self) -> GrammarLimits:
        """What grammars may cost."""
        return GrammarLimits(
            max_bytes=self.grammar_kib * 1024,
            max_depth=self.grammar_depth,
            compile_s=self.grammar_compile_s,
            cache_bytes=self.grammar_cache_mib * 1024 * 1024,
        )

    @property
    def thread_count(self) -> int:
        """Threads of one graph run: the setting, or the cores this process may use."""
        return self.threads or len(os.sched_getaffinity(0))
