"""ONNX Runtime over the slots of a KV cache; the only module that imports it.

The caches are bound in place: the slice of a slot buffer is both past and present, so nothing
is copied between steps. Every array a binding points at is kept by the object that owns the
binding, because ONNX Runtime holds bare pointers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from decoder_service.kv_cache import KvCache
from decoder_service.lanes import DecodeLane, LaneLogits, PrefillLane
from protos.bundle import Bundle, BundleError

FloatArray = npt.NDArray[np.float32]

_ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


def open_session(bundle: Bundle, threads: int) -> ort.InferenceSession:
    """Loads the bundle's graph.

    Args:
        bundle: An opened bundle.
        threads: Threads of one run.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, it is not the graph the manifest
            describes, or it was exported for another device.
    """
    provider = bundle.manifest.graph.execution_provider
    if provider != "cpu":
        raise BundleError(
            f"the bundle was exported for {provider}, this decoder runs on cpu: export it again"
            " with --execution-provider cpu"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Workers spin between the products of one run, where waking them costs more than it saves,
    # and stop when the run ends: the other services of the machine need the cores then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The arena keeps the largest shapes it has ever seen, rounded up to powers of two, and the
    # memory pattern keeps one plan per shape; prompts come in every length.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    file = bundle.path / bundle.manifest.graph.file
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exception types are not importable by name
        raise BundleError(
            f"the bundle is damaged: {bundle.manifest.graph.file} is no graph ONNX Runtime loads"
        ) from error
    _check_names(bundle, session)
    return session


def kv_dtype(session: ort.InferenceSession) -> np.dtype[Any]:
    """What the graph stores keys and values as."""
    return _dtype_of(session, "past_key_values.0.key")


def _dtype_of(session: ort.InferenceSession, name: str) -> np.dtype[Any]:
    found = next(entry.type for entry in session.get_inputs() if entry.name == name)
    if found not in _ELEMENT_TYPES:
        raise BundleError(f"the graph's input {name} is {found}, which this release cannot feed")
    return _ELEMENT_TYPES[found]


def _logits_dtype(session: ort.InferenceSession) -> np.dtype[Any]:
    return _ELEMENT_TYPES[next(e.type for e in session.get_outputs() if e.name == "logits")]


def _check_names(bundle: Bundle, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    layers = range(manifest.text.num_hidden_layers)
    inputs = {
        "inputs_embeds",
        "position_ids",
        "seqlens_k",
        "total_sequence_length",
        "logit_indices",
        *(f"deepstack_embeds.{level}" for level in range(manifest.deepstack_level_count)),
        *(f"past_key_values.{layer}.{side}" for layer in layers for side in ("key", "value")),
    }
    outputs = {
        "logits",
        *(f"present.{layer}.{side}" for layer in layers for side in ("key", "value")),
    }
    found_inputs = {entry.name for entry in session.get_inputs()}
    found_outputs = {entry.name for entry in session.get_outputs()}
    wrong = sorted((inputs ^ found_inputs) | (outputs ^ found_outputs))
    if wrong:
        raise BundleError(
            f"{manifest.graph.file} has other inputs or outputs than this release knows:"
            f" {', '.join(wrong[:4])}"
        )


class _Binding:
    """One set of input and output arrays bound to a session, all of them held here."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._held: list[npt.NDArray[Any]] = []

    def input(self, name: str, array: npt.NDArray[Any]) -> None:
        self._held.append(array)
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def output(self, name: str, array: npt.NDArray[Any]) -> None:
        self._held.append(array)
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def cache(self, cache: KvCache, first: int, stop: int) -> None:
        """Binds slots [first, stop) of every layer as past and as present."""
        for index, layer in enumerate(cache.layers):
            for side, buffer in zip(("key", "value"), layer, strict=True):
                rows = buffer[first:stop]
                self.input(f"past_key_values.{index}.{side}", rows)
                self.output(f"present.{index}.{side}", rows)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


class _DecodeBatch:
    """A decode step of B sequences: bound once, then only its arrays change."""

    def __init__(self, runner: "OrtRunner", count: int) -> None:
        dtype, hidden = runner.embeds_dtype, runner.hidden_size
        self.embeds = np.zeros((count, 1, hidden), dtype=dtype)
        self.position_ids = np.zeros((3, count, 1), dtype=np.int64)
        self.seqlens_k = np.zeros(count, dtype=np.int32)
        self.total = np.zeros((), dtype=np.int32)
        self.logits = runner.logits[:count]
        self.binding = _Binding(runner.session)
        self.binding.input("inputs_embeds", self.embeds)
        self.binding.input("position_ids", self.position_ids)
        self.binding.input("seqlens_k", self.seqlens_k)
        self.binding.input("total_sequence_length", self.total)
        self.binding.input("logit_indices", np.arange(count, dtype=np.int64))
        nothing = np.zeros((count, 1, hidden), dtype=dtype)
        for level in range(runner.level_count):
            self.binding.input(f"deepstack_embeds.{level}", nothing)
        self.binding.output("logits", self.logits)
        self.binding.cache(runner.cache, 0, count)


class OrtRunner:
    """`lanes.Runner` on ONNX Runtime.

    Args:
        session: From `open_session`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: ort.InferenceSession, bundle: Bundle, cache: KvCache) -> None:
        manifest = bundle.manifest
        self.session = session
        self.cache = cache
        self.hidden_size = manifest.text.hidden_size
        self.vocab_size = manifest.text.vocab_size
        self.level_count = manifest.deepstack_level_count
        self.embeds_dtype = _dtype_of(session, "inputs_embeds")
        # One buffer serves every batch size: logits hold only until the next run.
        self.logits = np.empty((cache.slot_count, self.vocab_size), dtype=_logits_dtype(session))
        self._batches: dict[int, _DecodeBatch] = {}

    def run(self, prefill: PrefillLane | None, decode: DecodeLane | None) -> LaneLogits:
        """See `lanes.Runner.run`."""
        nothing = self.logits[:0].astype(np.float32, copy=False)
        return LaneLogits(
            prefill=nothing if prefill is None else self._prefill(prefill),
            decode=nothing if decode is None else self._decode(decode),
        )

    def _decode(self, lane: DecodeLane) -> FloatArray:
        count = len(lane.embeds)
        batch = self._batches.get(count)
        if batch is None:
            batch = self._batches[count] = _DecodeBatch(self, count)
        batch.embeds[:, 0] = lane.embeds
        batch.position_ids[:, :, 0] = lane.position_ids
        batch.seqlens_k[:] = lane.past  # valid length after the run, minus one
        batch.total[...] = lane.past.max() + 1
        batch.binding.run()
        return batch.logits.astype(np.float32, copy=False)

    def _prefill(self, lane: PrefillLane) -> FloatArray:
        length = lane.past + len(lane.embeds)
        logits = np.empty((len(lane.logit_rows), self.vocab_size), dtype=self.logits.dtype)
        binding = _Binding(self.session)
        binding.input("inputs_embeds", self._embeds(lane.embeds)[None])
        binding.input("position_ids", lane.position_ids.astype(np.int64, order="C")[:, None])
        binding.input("seqlens_k", np.array([length - 1], dtype=np.int32))
        binding.input("total_sequence_length", np.array(length, dtype=np.int32))
        binding.input("logit_indices", lane.logit_rows)
        for level, values in enumerate(self._levels(lane.deepstack)):
            binding.input(f"deepstack_embeds.{level}", values[None])
        binding.output("logits", logits)
        binding.cache(self.cache, lane.slot, lane.slot + 1)
        binding.run()
        return logits.astype(np.float32, copy=False)

    def _levels(self, deepstack: FloatArray | None) -> Sequence[npt.NDArray[Any]]:
        if deepstack is None:
            nothing = np.zeros((1, self.hidden_size), dtype=self.embeds_dtype)
            return [nothing] * self.level_count
        return [self._embeds(values) for values in deepstack]

    def _embeds(self, values: FloatArray) -> npt.NDArray[Any]:
        return np.ascontiguousarray(values, dtype=self.embeds_dtype)
