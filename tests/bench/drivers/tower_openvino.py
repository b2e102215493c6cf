"""A vision tower in OpenVINO; runs in that peer's environment.

    python -m tests.bench.drivers.tower_openvino PRECISION MODEL INPUTS THREADS

PRECISION is f32, which holds every operation to it, or auto: what the runtime chooses on this
processor, bfloat16 where it multiplies that.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]

from tests.bench.drivers import protocol
from tests.bench.drivers.towers import FloatArray, Given, TowerDriver


class OpenVinoTower(TowerDriver):
    """A compiled model with one request."""

    def __init__(self, precision: str, model: Path, inputs: Path, threads: int) -> None:
        super().__init__(inputs)
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if precision == "f32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        self._form = model.parent.name
        self._model = openvino.Core().compile_model(str(model), "CPU", options)
        self._names = {name for port in self._model.inputs for name in port.get_names()}
        self._request = self._model.create_infer_request()

    def describe(self) -> str:
        """Version, and the precision that it runs in."""
        chosen = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return f"openvino {openvino.__version__}, {self._form}, inference precision {chosen}"

    def encode(self, prepared: Given) -> FloatArray:
        """See `TowerDriver.encode`."""
        feeds = {"pixel_values": prepared.pixels, **prepared.feeds}
        self._request.infer({name: feeds[name] for name in self._names}, share_inputs=True)
        levels = range(len(self._model.outputs))
        return np.stack([self._request.get_tensor(f"level.{index}").data for index in levels])


if __name__ == "__main__":
    precision, model, inputs, threads = sys.argv[1:]
    protocol.serve(lambda: OpenVinoTower(precision, Path(model), Path(inputs), int(threads)))
