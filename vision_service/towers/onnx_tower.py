"""The vision tower as an ONNX graph: neither torch nor transformers in the process.

The graph's weights are mapped from the bundle as they lie, so that all replicas of a host share
them and a further one is there at once.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort

from kernels import library
from protos.bundle.manifest import BundleError
from protos.media.grid_inputs import GridSettings, grid_inputs
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.watch import watching

CONFIG_FILE = "vision/config.json"
# The graph of each form, and whether it needs Tandem's operators; see deploy/export/vision.
FORMS = {
    "portable": ("vision/tower.onnx", False),
    "exact": ("vision/tower.exact.onnx", True),
    "fast": ("vision/tower.fast.onnx", True),
}


class OnnxTower:
    """A loaded tower; see `tower.BatchEncoder`."""

    def __init__(self, session: ort.InferenceSession, settings: GridSettings) -> None:
        self._session = session
        self._settings = settings
        self._levels = [output.name for output in session.get_outputs()]

    @classmethod
    def load(cls, bundle: Path, *, form: str, threads: int) -> Self:
        """Opens one form's graph.

        Args:
            bundle: Folder of the bundle.
            form: One of `FORMS`.
            threads: Threads of one run.

        Raises:
            BundleError: a file or key is missing or damaged, or this machine lacks the operators.
        """
        name, needs_operators = FORMS[form]
        if needs_operators and library.path() is None:
            raise BundleError(f"{name} needs Tandem's operators, which cannot run here")
        return cls(_open(bundle / name, threads, needs_operators), _settings(bundle))

    def encode(
        self,
        batch: Sequence[Patches],
        abandoned: Callable[[], bool] = lambda: False,
    ) -> list[FloatArray]:
        """Encodes images together; each attends to itself alone.

        Args:
            batch: Patches of each image, float32 [P, D], and its grid.
            abandoned: Asked while the graph runs; true drops the batch before its next node.

        Returns:
            Features of each image, float32 [levels, N, H]; level 0 holds the embeddings.

        Raises:
            Abandoned: `abandoned` said so.
            FloatingPointError: the output is not finite.
        """
        pixels, grids = zip(*batch, strict=True)
        joined = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
        feeds = {"pixel_values": joined, **grid_inputs(grids, self._settings).feeds()}
        options = ort.RunOptions()

        def stop() -> None:
            options.terminate = True

        with watching(abandoned, stop):
            levels = self._session.run(self._levels, feeds, options)
        if not all(np.isfinite(level).all() for level in levels):
            raise FloatingPointError("the tower's output is not finite")
        ends = np.cumsum([grid.tokens(self._settings.merge_size) for grid in grids])
        starts = [0, *ends[:-1]]
        return [
            np.stack([level[start:end] for level in levels])
            for start, end in zip(starts, ends, strict=True)
        ]

    @property
    def level_count(self) -> int:
        """Embeddings and DeepStack levels."""
        return len(self._levels)


def _settings(bundle: Path) -> GridSettings:
    try:
        config = json.loads((bundle / CONFIG_FILE).read_text())
        return GridSettings.from_config(config)
    except (OSError, ValueError) as error:
        raise BundleError(f"{CONFIG_FILE} is missing or not valid JSON") from error
    except KeyError as error:
        raise BundleError(f"{CONFIG_FILE} lacks {error.args[0]}") from error


def _open(graph: Path, threads: int, needs_operators: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Workers spin between the nodes of one run, where waking them costs more than it saves, and
    # stop when the run ends: the machine's other services need the cores then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Packed copies of the weights would be each replica's own: 1.2 GB of the 2B tower's.
    options.add_session_config_entry("session.disable_prepacking", "1")
    # Images come in every size; the arena would keep the largest shapes it has ever seen.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    if needs_operators:
        options.register_custom_ops_library(str(library.path()))
    try:
        return ort.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # ONNX Runtime's own exception types are not importable by name
        raise BundleError(f"{graph.name} is missing or no graph ONNX Runtime loads") from error
