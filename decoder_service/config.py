"""Settings of a decoder process."""

import os
from dataclasses import dataclass

from decoder_service.grammar.checks import GrammarLimits
from protos.process.settings import SettingError, setting
from protos.wire.channels import DECODER_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Settings of one decoder process; environment names are DECODER_<FIELD>."""

    bundle: str = setting("folder of the bundle to serve")
    host: str = setting("address to listen on", default="127.0.0.1")
    port: int = setting("gRPC port; 0 chooses a free one", default=DECODER_PORT)
    threads: int | None = setting("threads of one graph run; unset: all cores", default=None)
    max_sequences: int | None = setting(
        "sequences that run at once; unset: up to 16, as memory allows", default=None
    )
    max_context: int | None = setting(
        "most tokens (prompt and answer) of one sequence; unset: up to 32768, as the model"
        " and memory allow",
        default=None,
    )
    kv_memory_mib: int | None = setting(
        "most memory of the KV cache, MiB, of running and of ended sequences together; unset:"
        " half of what is free after loading",
        default=None,
    )
    kernels: str = setting(
        "what multiplies INT4 weights: tandem: Tandem's own operators; onnxruntime: ONNX Runtime's;"
        " auto: Tandem's where the bundle has such graphs and the processor runs them",
        default="auto",
    )
    kv_dtype: str = setting(
        "what the KV cache holds: float32; float16 in half the memory (Tandem's operators); int8 in"
        " a quarter (ONNX Runtime's, slower); auto: float16 where Tandem's operators run",
        default="auto",
    )
    max_waiting: int = setting("sequences that may wait for a slot", default=64)
    prefill_chunk_tokens: int = setting(
        "most prompt tokens of a step while nothing decodes; a step cannot be cancelled, so it"
        " bounds how long a cancelled prompt holds its slot",
        default=256,
    )
    mixed_chunk_tokens: int = setting(
        "most prompt tokens of a step while sequences decode; fewer when measured run times say"
        " that their tokens would come too slowly",
        default=256,
    )
    speculation: str = setting(
        "auto: guess ahead from prompt and answer while one sequence decodes and guesses come"
        " true; off: never",
        default="auto",
    )
    draft_tokens: int = setting("most tokens guessed ahead", default=8)
    # Longer than the gateway waits for an encoding, so that its clearer error comes first.
    features_timeout_s: float = setting(
        "longest pause of a client that still owes features, seconds", default=120.0
    )
    grammar_kib: int = setting("longest schema or other grammar of a request, KiB", default=64)
    grammar_depth: int = setting("deepest nesting of a schema's JSON", default=32)
    grammar_compile_s: float = setting("longest compiling of a grammar, seconds", default=2.0)
    grammar_cache_mib: int = setting("most memory of compiled grammars kept, MiB", default=64)
    drain_timeout_s: float = setting(
        "how long running streams may end after SIGTERM, seconds", default=30.0
    )
    allow_logits: bool = setting("answer requests for raw logits (large)", default=False)
    reflection: bool = setting("answer gRPC reflection", default=False)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="INFO")

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            SettingError: a value out of range, by name.
        """
        for name, least in (
            ("threads", 1),
            ("max_sequences", 1),
            ("max_context", 2),
            ("kv_memory_mib", 1),
            ("max_waiting", 0),
            ("prefill_chunk_tokens", 1),
            ("mixed_chunk_tokens", 1),
            ("draft_tokens", 1),
            ("features_timeout_s", 0.001),
            ("grammar_kib", 1),
            ("grammar_depth", 1),
            ("grammar_compile_s", 0.001),
            ("grammar_cache_mib", 1),
            ("drain_timeout_s", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise SettingError(f"{name} is {value}, expected at least {least}")
        if not 0 <= self.port <= 65535:
            raise SettingError(f"port is {self.port}, expected 0 to 65535")
        if self.speculation not in ("auto", "off"):
            raise SettingError(f"speculation is {self.speculation!r}, expected auto or off")
        if self.kernels not in ("auto", "tandem", "onnxruntime"):
            raise SettingError(f"kernels is {self.kernels!r}, expected auto, tandem or onnxruntime")
        if self.kv_dtype not in ("auto", "float32", "float16", "int8"):
            raise SettingError(
                f"kv_dtype is {self.kv_dtype!r}, expected auto, float32, float16 or int8"
            )
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingError(f"log_level is {self.log_level!r}, expected DEBUG to ERROR")

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
