"""ONNX Runtime's sessions over a bundle's graphs; the only module of a decoder that imports it."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from decoder_service.cache.kv_cache import LayerCache
from kernels import library
from protos.bundle.manifest import Bundle, BundleError, DecoderGraph
from protos.process.settings import SettingError

_KV_DTYPES = {"float32": np.float32, "float16": np.float16}
# What "auto" comes to, the first that the bundle has.
_AUTO_KV = {"onnxruntime": ("float32",), "tandem": ("float16", "float32")}

logger = logging.getLogger(__name__)


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
        try:
            self.session = ort.InferenceSession(
                str(bundle.path / graph.file),
                _options(threads, graph.kernels),
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # it prints to stdout, which belongs to the ready event
            )
        except Exception as error:  # ONNX Runtime's own exception types are not importable by name
            raise BundleError(
                f"the bundle is damaged: {graph.file} is no graph ONNX Runtime loads"
            ) from error
        _check_names(bundle, graph, self.session)

    @property
    def kv_dtype(self) -> np.dtype[Any]:
        """What it stores keys and values as."""
        return np.dtype(_KV_DTYPES[self.graph.kv_dtype])

    def describe(self) -> str:
        """One line for the log."""
        kernels = "ONNX Runtime's"
        if self.graph.kernels == "tandem":
            kernels = f"Tandem's ({library.instruction_set()})"
        return f"{self.graph.precision} through {kernels} kernels, KV {self.kv_dtype}"


def open_graph(
    bundle: Bundle, *, threads: int, kernels: str = "auto", kv_dtype: str = "auto"
) -> GraphSession:
    """Loads the graph a decoder is to run.

    Args:
        bundle: An opened bundle.
        threads: Threads of one run.
        kernels: "tandem" or "onnxruntime"; "auto": Tandem's where the bundle has graphs for them
            and this machine runs them, else ONNX Runtime's.
        kv_dtype: "float32" or "float16"; "auto" chooses.

    Raises:
        BundleError: the graph cannot be loaded, or was exported for another device.
        SettingError: the bundle has no such graph, or this machine cannot run it.
    """
    return GraphSession(bundle, choose_graph(bundle, kernels, kv_dtype), threads)


def choose_graph(bundle: Bundle, kernels: str, kv_dtype: str) -> DecoderGraph:
    """The graph `open_graph` loads; see there."""
    provider = bundle.manifest.graph.execution_provider
    if provider != "cpu":
        raise BundleError(
            f"the bundle was exported for {provider}, this decoder runs on cpu: export the"
            " checkpoint again"
        )
    if kernels != "onnxruntime":
        found = _fitting(bundle, "tandem", kv_dtype)
        if found is not None and library.path() is not None:
            return found
        missing = _missing(kv_dtype, has_graph=found is not None)
        if kernels == "tandem":
            raise SettingError(f"kernels is tandem, {missing}")
        logger.info("ONNX Runtime's kernels: %s", missing)
    found = _fitting(bundle, "onnxruntime", kv_dtype)
    if found is None:
        raise SettingError(f"kv_dtype is {kv_dtype}, the bundle has no graph with such a cache")
    return found


def _fitting(bundle: Bundle, kernels: str, kv_dtype: str) -> DecoderGraph | None:
    """The graph of one kind and cache."""
    graphs = {g.kv_dtype: g for g in bundle.manifest.graphs if g.kernels == kernels}
    wanted = _AUTO_KV[kernels] if kv_dtype == "auto" else (kv_dtype,)
    return next((graphs[dtype] for dtype in wanted if dtype in graphs), None)


def _missing(kv_dtype: str, *, has_graph: bool) -> str:
    if has_graph:
        return "no library of operators was built for this machine, or its processor lacks AVX2"
    return f"the bundle has no graph for Tandem's with kv_dtype {kv_dtype}"


def _options(threads: int, kernels: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Workers spin between the products of one run, where waking them costs more than it saves,
    # and stop when the run ends: the machine's other services need the cores then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The arena keeps the largest shapes it has ever seen, rounded up to powers of two, and the
    # memory pattern keeps one plan per shape; prompts come in every length.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    if kernels == "tandem":
        options.register_custom_ops_library(str(library.path()))
    options.log_severity_level = 3
    return options


def _check_names(bundle: Bundle, graph: DecoderGraph, session: ort.InferenceSession) -> None:
    manifest = bundle.manifest
    layers = range(manifest.text.num_hidden_layers)
    sides = [f"{layer}.{side}" for layer in layers for side in ("key", "value")]
    inputs = {
        "inputs_embeds",
        "position_ids",
        "logit_indices",
        *(f"deepstack_embeds.{level}" for level in range(manifest.deepstack_level_count)),
        *(f"past_key_values.{side}" for side in sides),
    }
    outputs = {"logits"}
    if graph.kernels == "tandem":
        inputs.add("sequences")
    else:
        inputs |= {"seqlens_k", "total_sequence_length"}
        outputs |= {f"present.{side}" for side in sides}
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
        self._has_present = session.graph.kernels != "tandem"
        self._held: dict[str, npt.NDArray[Any]] = {}

    def input(self, name: str, array: npt.NDArray[Any]) -> None:
        """Binds a C-contiguous array as an input."""
        self._held[name] = array
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def output(self, name: str, array: npt.NDArray[Any]) -> None:
        """Binds a C-contiguous array as an output."""
        self._held[name] = array
        self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def cache(self, layers: Sequence[LayerCache]) -> None:
        """Binds rows of every layer as past and as present: the kernel writes in place.

        Tandem's writes into what it is given and has no output for it.
        """
        for index, layer in enumerate(layers):
            for side, rows in zip(("key", "value"), layer, strict=True):
                self.input(f"past_key_values.{index}.{side}", rows)
                if self._has_present:
                    self.output(f"present.{index}.{side}", rows)

    def run(self) -> None:
        """Runs the graph."""
        self._session.run_with_iobinding(self._binding)
