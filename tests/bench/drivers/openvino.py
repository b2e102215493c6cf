"""Drives OpenVINO GenAI's continuous batching, its fastest form on a CPU.

python -m tests.bench.drivers.openvino MODEL_FOLDER THREADS
"""

import sys
import time
from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]
import openvino_genai as api  # type: ignore[import-not-found]

from tests.bench.drivers import protocol

CACHE_GB = 3
PROMPT_TOKENS_PER_STEP = 2304  # a prompt is never cut


class OpenVino:
    """One compressed model in one pipeline."""

    def __init__(self, path: str, threads: int) -> None:
        scheduler = api.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_seqs = 64
        scheduler.max_num_batched_tokens = PROMPT_TOKENS_PER_STEP
        scheduler.dynamic_split_fuse = False
        scheduler.enable_prefix_caching = False
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._pipeline = api.ContinuousBatchingPipeline(path, scheduler, "CPU", options)
        self._handles: list[Any] = []
        self._last_id = 0

    def describe(self) -> str:
        """Version and form."""
        return f"openvino-genai {api.__version__}, continuous batching"

    def prefill(self, tokens: int) -> float:
        """One request for one token, alone."""
        began = time.perf_counter()
        handle = self._add(tokens, new_tokens=1)  # a request whose handle is dropped is cancelled
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        seconds = time.perf_counter() - began
        if not handle.can_read():
            raise RuntimeError("the prompt gave no token")
        return seconds

    def hold(self, batch: int, context: int) -> None:
        """Adds the requests and steps until each has a token."""
        limit = protocol.MOST_HELD_TOKENS
        self._handles = [self._add(context, new_tokens=limit) for _ in range(batch)]
        while not all(handle.can_read() for handle in self._handles):
            self._pipeline.step()

    def decode(self, tokens: int) -> list[float]:
        """Times the pipeline's steps and checks that each gave every sequence a token."""
        for _ in range(protocol.WARM_STEPS):
            self._pipeline.step()
        self._read()
        seconds = [self._step() for _ in range(tokens)]
        got = self._read()
        if got != [tokens] * len(self._handles):
            raise RuntimeError(f"{tokens} steps gave {got} tokens")
        return seconds

    def drop(self) -> None:
        """Cancels the requests and lets the pipeline notice."""
        for handle in self._handles:
            handle.cancel()
        self._handles = []
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _add(self, length: int, *, new_tokens: int) -> Any:
        config = api.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        ids = np.array([protocol.random_ids(length)], dtype=np.int64)
        self._last_id += 1
        return self._pipeline.add_request(self._last_id, openvino.Tensor(ids), config)

    def _step(self) -> float:
        began = time.perf_counter()
        self._pipeline.step()
        return time.perf_counter() - began

    def _read(self) -> list[int]:
        """New tokens of each sequence since the last call."""
        counts = []
        for handle in self._handles:
            count = 0
            while handle.can_read():
                count += sum(len(output.generated_ids) for output in handle.read().values())
            counts.append(count)
        return counts


if __name__ == "__main__":
    protocol.serve(lambda: OpenVino(sys.argv[1], int(sys.argv[2])))
