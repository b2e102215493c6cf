"""How fast this machine reads memory, and how fast that lets a model decode."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from protos.bundle.manifest import DecoderGraph
from tests.bench.figures import FIGURES, TextShape, weight_bits

READ_BYTES = 1024**3  # well beyond any cache
READ_RUNS = 3
KV_BYTES = {"float32": 4, "float16": 2}


def read_bandwidth(threads: int) -> float:
    """Bytes per second with which `threads` threads sum large arrays, the best of several runs."""
    arrays = [np.ones(READ_BYTES // 8 // threads, dtype=np.int64) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets go of the interpreter while it sums
        for _ in range(READ_RUNS):
            began = time.perf_counter()
            list(pool.map(np.sum, arrays))
            best = min(best, time.perf_counter() - began)
    return READ_BYTES / best


def ceilings(shape: TextShape, graph: DecoderGraph, bandwidth: float) -> Mapping[str, float]:
    """Most tokens per second by figure if reading weights and keys and values were all.

    Decoding only: prefill is bound by arithmetic.
    """
    weights = shape.weight_count * weight_bits(graph.precision, graph.block_size) / 8
    found = {}
    for figure in FIGURES.values():
        if figure.batch:
            cached = shape.kv_bytes(figure.context, KV_BYTES[graph.kv_dtype])
            found[figure.name] = figure.batch * bandwidth / (weights + figure.batch * cached)
    return found
