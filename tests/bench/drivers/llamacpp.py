"""Drives llama.cpp through llama-cpp-python's low-level interface.

python -m tests.bench.drivers.llamacpp MODEL.gguf THREADS
"""

import ctypes
import sys
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp as api  # type: ignore[import-not-found]

from tests.bench.drivers import protocol

BATCH_TOKENS = 2048


class LlamaCpp:
    """One GGUF model; a context per use, because its size is fixed."""

    def __init__(self, path: str, threads: int) -> None:
        self._threads = threads
        self._log = api.llama_log_callback(_ignore)  # kept: the library holds no reference
        api.llama_log_set(self._log, ctypes.c_void_p(0))
        api.llama_backend_init()
        self._model = api.llama_model_load_from_file(
            path.encode(), api.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self._batch = api.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._held: Any = None
        self._lengths: list[int] = []

    def describe(self) -> str:
        """Version and the instructions it was built for."""
        info = api.llama_print_system_info().decode().partition("CPU : ")[2]
        used = [part.split(" = ")[0].strip() for part in info.split("|") if " = 1" in part]
        return f"llama-cpp-python {api.__version__}, {' '.join(used)}"

    def prefill(self, tokens: int) -> float:
        """Runs one prompt, logits for its last token."""
        context = self._open(sequences=1, length=tokens + 1)
        ids = protocol.random_ids(tokens)
        began = time.perf_counter()
        self._run(context, ids, range(tokens), [0] * tokens, [False] * (tokens - 1) + [True])
        seconds = time.perf_counter() - began
        api.llama_free(context)
        return seconds

    def hold(self, batch: int, context: int) -> None:
        """Prefills one sequence and copies its cache to the others, each into memory of its own."""
        held = self._open(sequences=batch, length=context + protocol.MOST_HELD_TOKENS)
        ids = protocol.random_ids(context)
        for first in range(0, context, BATCH_TOKENS):
            part = range(first, min(first + BATCH_TOKENS, context))
            count = len(part)
            self._run(held, ids[first : part.stop], part, [0] * count, [False] * count)
        memory = api.llama_get_memory(held)
        for sequence in range(1, batch):
            api.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        self._held, self._lengths = held, [context] * batch

    def decode(self, tokens: int) -> list[float]:
        """Each step computes one token's logits per sequence; no sampling."""
        for _ in range(protocol.WARM_STEPS):
            self._step()
        return [self._step() for _ in range(tokens)]

    def drop(self) -> None:
        """Frees the context."""
        if self._held is not None:
            api.llama_free(self._held)
            self._held = None

    def _step(self) -> float:
        count = len(self._lengths)
        ids = protocol.random_ids(count)
        began = time.perf_counter()
        self._run(self._held, ids, self._lengths, range(count), [True] * count)
        seconds = time.perf_counter() - began
        self._lengths = [length + 1 for length in self._lengths]
        return seconds

    def _open(self, *, sequences: int, length: int) -> Any:
        parameters = api.llama_context_default_params()
        parameters.n_ctx = sequences * length
        parameters.n_batch = BATCH_TOKENS
        parameters.n_threads = self._threads
        parameters.n_threads_batch = self._threads
        parameters.n_seq_max = sequences
        context = api.llama_init_from_model(self._model, parameters)
        if not context:
            raise RuntimeError("llama.cpp could not open a context")
        return context

    def _run(
        self,
        context: Any,
        ids: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[bool],
    ) -> None:
        batch = self._batch
        batch.n_tokens = len(ids)
        for row, token in enumerate(ids):
            batch.token[row] = token
            batch.pos[row] = positions[row]
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequences[row]
            batch.logits[row] = wanted[row]
        code = api.llama_decode(context, batch)
        if code:
            raise RuntimeError(f"llama_decode answered {code}")
        api.llama_synchronize(context)


def _ignore(level: int, text: bytes, data: object) -> None:
    """Says nothing: the library logs pages while loading."""


if __name__ == "__main__":
    protocol.serve(lambda: LlamaCpp(sys.argv[1], int(sys.argv[2])))
