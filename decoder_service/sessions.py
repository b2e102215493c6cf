"""ONNX Runtime's sessions over a bundle's graphs; the only module of a decoder that imports it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from decoder_service import prepacked
from decoder_service.kv_cache import LayerCache
from protos.bundle import Bundle, BundleError, DecoderGraph
from protos.settings import SettingError

LANES = {1: ("",), 2: ("prefill.", "decode.")}  # prefixes of the lanes' inputs, by lane count

VNNI = {"avx512_vnni", "avx_vnni"}  # processor features: 8-bit products added in 32 bits

_KV_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8}


class GraphSession:
    """One loaded graph.

    Args:
        bundle: Where it lies.
        graph: Which one.
        threads: Threads of one run.

    Raises:
        BundleError: ONNX Runtime cannot load it, or it is not the graph the manifest describes.
    """

    def __init__(self, bundle: Bundle, graph: DecoderGraph, threads: int) -> None:
        self.graph = graph
        options, file = _options(threads), prepacked.find(bundle, graph)
        self.is_prepacked = file is not None
        if file is not None:  # it was optimized when it was written
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = ort.InferenceSession(
                str(file or bundle.path / graph.file),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # it prints to stdout, which belongs to the ready event
            )
        except Exception as error:  # ONNX Runtime's own exception types are not importable by name
            raise BundleError(
                f"the bundle is damaged: {graph.file} is no graph ONNX Runtime loads"
            ) from error
        _check_names(bundle, graph, self.session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """The loaded forms of a model; at least one is there.

    Attributes:
        narrow: The single-lane graph.
        wide: The two-lane graph.
        kv_dtype: What they store keys and values as.
    """

    narrow: GraphSession | None
    wide: GraphSession | None
    kv_dtype: np.dtype[Any]

    def describe(self) -> str:
        """The forms and where their weights are, for the log."""
        forms = (("narrow", self.narrow), ("wide", self.wide))
        return ", ".join(
            f"{name} {session.graph.precision} ({'mapped' if session.is_prepacked else 'own'})"
            for name, session in forms
            if session is not None
        )


def open_graphs(
    bundle: Bundle, *, threads: int, weight_forms: str = "auto", kv_dtype: str = "float32"
) -> Graphs:
    """Loads the graphs a decoder is to run.

    Args:
        bundle: An opened bundle.
        threads: Threads of one run.
        weight_forms: "narrow" or "wide" for one form only; "auto" for both, where the bundle has
            two: where both graphs have the same weights the two-lane one does everything.
        kv_dtype: "float32" or "int8".

    Raises:
        BundleError: a graph cannot be loaded, or was exported for another device.
        SettingError: the bundle has no such graph.
    """
    chosen = choose_graphs(bundle, weight_forms, kv_dtype)
    with ThreadPoolExecutor(len(chosen)) as pool:  # loading packs weights, on one core each
        loaded = list(pool.map(lambda graph: GraphSession(bundle, graph, threads), chosen))
    by_lanes = {session.graph.lanes: session for session in loaded}
    stored = np.dtype(_KV_DTYPES[chosen[0].kv_dtype])
    return Graphs(narrow=by_lanes.get(1), wide=by_lanes.get(2), kv_dtype=stored)


def choose_graphs(bundle: Bundle, weight_forms: str, kv_dtype: str) -> Sequence[DecoderGraph]:
    """The graphs `open_graphs` loads; see there."""
    manifest = bundle.manifest
    provider = manifest.graph.execution_provider
    if provider != "cpu":
        raise BundleError(
            f"the bundle was exported for {provider}, this decoder runs on cpu: export it again"
            " with --execution-provider cpu"
        )
    fitting = [graph for graph in manifest.graphs if graph.kv_dtype == kv_dtype]
    if not fitting:
        raise SettingError(f"kv_dtype is {kv_dtype}, the bundle has no graph with such a cache")
    narrow = next((graph for graph in fitting if graph.lanes == 1), None)
    wide = next((graph for graph in fitting if graph.lanes == 2), None)
    if weight_forms == "auto":
        if narrow is not None and wide is not None and _weights(narrow) == _weights(wide):
            return [wide]
        return [graph for graph in (narrow, wide) if graph is not None]
    wanted = narrow if weight_forms == "narrow" else wide
    if wanted is None:
        raise SettingError(f"weight_forms is {weight_forms}, the bundle has no such graph")
    return [wanted]


def _weights(graph: DecoderGraph) -> tuple[str, int | None, int | None]:
    return graph.precision, graph.block_size, graph.accuracy_level


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Workers spin between the products of one run, where waking them costs more than it saves,
    # and stop when the run ends: the other session and the machine's other services need the
    # cores then. Two pools that both go on spinning made the same run four times slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The arena keeps the largest shapes it has ever seen, rounded up to powers of two, and the
    # memory pattern keeps one plan per shape; prompts come in every length.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Processors without VNNI add pairs of 8-bit products in 16 bits, which saturate; this makes
    # them multiply unsigned weights, slower and right. On the others it would be slower only.
    if not prepacked.processor_features() & VNNI:
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return options


def _check_names(bundle: Bundle, graph: DecoderGraph, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    lanes, layers = LANES[graph.lanes], range(manifest.text.num_hidden_layers)
    sides = [f"{layer}.{side}" for layer in layers for side in ("key", "value")]
    inputs = {
        "inputs_embeds",
        "position_ids",
        "logit_indices",
        *(f"deepstack_embeds.{level}" for level in range(manifest.deepstack_level_count)),
        *(f"{lane}{name}" for lane in lanes for name in ("seqlens_k", "total_sequence_length")),
        *(f"{lane}past_key_values.{side}" for lane in lanes for side in sides),
    }
    outputs = {"logits", *(f"{lane}present.{side}" for lane in lanes for side in sides)}
    found_inputs = {entry.name for entry in session.get_inputs()}
    found_outputs = {entry.name for entry in session.get_outputs()}
    wrong = sorted((inputs ^ found_inputs) | (outputs ^ found_outputs))
    if wrong:
        raise BundleError(
            f"{graph.file} has other inputs or outputs than this release knows:"
            f" {', '.join(wrong[:4])}"
        )


class Binding:
    """One set of input and output arrays bound to a session.

    ONNX Runtime holds bare pointers, so every array is held here, by name: binding a name again
    lets the earlier array go.
    """

    def __init__(self, session: GraphSession) -> None:
        self._session = session.session
        self._binding = session.session.io_binding()
        self._held: dict[str, npt.NDArray[Any]] = {}

    def input(self, name: str, array: npt.NDArray[Any]) -> None:
        """Binds a C-contiguous array as an input."""
        self._held[name] = array
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def output(self, name: str, array: npt.NDArray[Any]) -> None:
        """Binds a C-contiguous array as an output."""
        self._held[name] = array
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def cache(self, lane: str, layers: Sequence[LayerCache]) -> None:
        """Binds rows of every layer as past and as present: the kernel writes in place."""
        for index, layer in enumerate(layers):
            for side, rows in zip(("key", "value"), layer, strict=True):
                self.input(f"{lane}past_key_values.{index}.{side}", rows)
                self.output(f"{lane}present.{index}.{side}", rows)

    def run(self) -> None:
        """Runs the graph."""
        self._session.run_with_iobinding(self._binding)
