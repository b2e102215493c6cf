"""The vision tower as an ONNX graph: neither torch nor transformers in the process.

The graph's weights are mapped from the bundle as they lie, so that all replicas of a host share
them and a further one is there at once.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from kernels import library, passes
from protos.bundle.manifest import BundleError
from protos.media.grid_inputs import GridSettings, grid_inputs
from protos.media.images import Grid
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Members

CONFIG_FILE = "vision/config.json"
# The graph of each form, and whether it needs Tandem's operators; see deploy/export/vision.
FORMS = {
    "portable": ("vision/tower.onnx", False),
    "exact": ("vision/tower.exact.onnx", True),
    "fast": ("vision/tower.fast.onnx", True),
}


class OnnxTower:
    """A loaded tower; see `tower.BatchEncoder`.

    Args:
        session: The graph.
        settings: Of the tower's grids.
        computes_all: Whether it has other operators than ours, which know of no images.
    """

    def __init__(
        self, session: ort.InferenceSession, settings: GridSettings, *, computes_all: bool
    ) -> None:
        self._session = session
        self._settings = settings
        self.computes_all = computes_all
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
        session = _open(bundle / name, threads, needs_operators)
        return cls(session, _settings(bundle), computes_all=not needs_operators)

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """See `tower.BatchEncoder.encode`.

        Rows of an image that leaves are out from the next operator on, which is less than a block;
        the portable form computes them to the end.

        Raises:
            Abandoned: all images left.
            FloatingPointError: the output of one that stayed is not finite.
        """
        members = members or Members(len(batch))
        pixels, grids = zip(*batch, strict=True)
        joined = pixels[0] if len(pixels) == 1 else np.concatenate(pixels)
        feeds = {"pixel_values": joined, **grid_inputs(grids, self._settings).feeds()}
        levels = self._run(feeds, grids, members)
        ends = np.cumsum([grid.tokens(self._settings.merge_size) for grid in grids])
        starts = np.array([0, *ends[:-1]])
        # Left-out rows mean nothing: of an image that left, none are taken.
        starts[members.leaves_at != passes.NEVER] = 0
        ends[members.leaves_at != passes.NEVER] = 0
        features = [
            np.stack([level[start:end] for level in levels])
            for start, end in zip(starts, ends, strict=True)
        ]
        if not all(np.isfinite(one).all() for one in features):
            raise FloatingPointError("the tower's output is not finite")
        return features

    def _run(
        self, feeds: dict[str, npt.NDArray[Any]], grids: Sequence[Grid], members: Members
    ) -> list[FloatArray]:
        options = ort.RunOptions()

        def stop() -> None:
            options.terminate = True

        bounds = np.cumsum([0, *(grid.patches for grid in grids)], dtype=np.int64)
        leaving = (
            nullcontext()
            if self.computes_all
            else passes.running(bounds, members.leaves_at, members.rows_computed)
        )
        with members.ending(stop), leaving:
            levels: list[FloatArray] = self._session.run(self._levels, feeds, options)
        return levels

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
