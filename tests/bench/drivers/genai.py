"""Drives onnxruntime-genai's `Generator`.

python -m tests.bench.drivers.genai MODEL_FOLDER THREADS
"""

import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime_genai as api

from tests.bench.drivers import protocol


class GenAi:
    """One model; a generator per use, because its batch and length are fixed."""

    def __init__(self, path: str, threads: int) -> None:
        config = api.Config(path)
        # Without this setting it runs one thread.
        options = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._model = api.Model(config)
        self._held: Any = None

    def describe(self) -> str:
        """Version and form."""
        return f"onnxruntime-genai {api.__version__}, Generator"

    def prefill(self, tokens: int) -> float:
        """Appends one prompt and takes one token; making the generator is not timed."""
        generator = self._open(batch=1, length=tokens + 16)
        ids = np.array([protocol.random_ids(tokens)], dtype=np.int32)
        began = time.perf_counter()
        generator.append_tokens(ids)
        generator.generate_next_token()
        return time.perf_counter() - began

    def hold(self, batch: int, context: int) -> None:
        """Prefills a static batch."""
        held = self._open(batch=batch, length=context + protocol.MOST_HELD_TOKENS)
        prompts = [protocol.random_ids(context) for _ in range(batch)]
        held.append_tokens(np.array(prompts, dtype=np.int32))
        self._held = held

    def decode(self, tokens: int) -> list[float]:
        """Times `generate_next_token`, which steps the whole batch."""
        for _ in range(protocol.WARM_STEPS):
            self._step()
        return [self._step() for _ in range(tokens)]

    def drop(self) -> None:
        """Frees the generator."""
        self._held = None

    def _open(self, *, batch: int, length: int) -> Any:
        parameters = api.GeneratorParams(self._model)
        parameters.set_search_options(
            max_length=length, min_length=length, do_sample=False, batch_size=batch
        )
        return api.Generator(self._model, parameters)

    def _step(self) -> float:
        began = time.perf_counter()
        self._held.generate_next_token()
        return time.perf_counter() - began


if __name__ == "__main__":
    protocol.serve(lambda: GenAi(sys.argv[1], int(sys.argv[2])))
