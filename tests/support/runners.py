"""A decoder's runner and its cache over a bundle, without the engine around them."""

from pathlib import Path

import numpy as np

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import Runner, Segments
from decoder_service.model.runner import make_runner
from decoder_service.model.sessions import open_graph
from protos.bundle.manifest import Bundle
from tests.support.graphs import GraphInputs
from tests.support.oracle import Float32Array


def open_runner(
    bundle: Path,
    *,
    slots: int,
    context: int,
    kernels: str = "auto",
    kv_dtype: str = "auto",
) -> tuple[Runner, KvCache]:
    """The runner a decoder with these settings has, on one thread.

    Args:
        bundle: Its folder.
        slots: Sequences that fit.
        context: Tokens that fit into each.
        kernels: See `sessions.open_graph`.
        kv_dtype: See `sessions.open_graph`.
    """
    opened = Bundle.open(bundle)
    session = open_graph(opened, threads=1, kernels=kernels, kv_dtype=kv_dtype)
    text = opened.manifest.text
    cache = KvCache(
        layer_count=text.num_hidden_layers,
        slot_count=slots,
        head_count=text.num_key_value_heads,
        max_length=context,
        head_dim=text.head_dim,
        dtype=session.kv_dtype,
    )
    return make_runner(session, opened, cache), cache


def prefill(slot: int, past: int, inputs: GraphInputs, rows: np.ndarray) -> Segments:
    """Tokens of a prompt, with the logits of some rows."""
    return Segments(
        slot=slot,
        past=np.array([past], np.int32),
        embeds=inputs.embeds,
        position_ids=inputs.position_ids.astype(np.int32),
        deepstack=np.stack(inputs.deepstack) if inputs.deepstack else None,
        logit_rows=rows,
    )


def decode(past: int, token: GraphInputs) -> Segments:
    """One token in slot 0."""
    return Segments(
        slot=0,
        past=np.array([past], np.int32),
        embeds=token.embeds,
        position_ids=token.position_ids[0],
        logit_rows=np.array([0]),
    )


def logits_of(runner: Runner, *batch: Segments) -> list[Float32Array]:
    """Runs a batch; a copy of each part's logits, [R, vocab]."""
    logits = runner.bind(batch).run()
    ends = np.cumsum([len(part.logit_rows) for part in batch])
    return [rows.copy() for rows in np.split(logits, ends[:-1])]
