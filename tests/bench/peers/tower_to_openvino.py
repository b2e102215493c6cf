"""Writes a tower for OpenVINO, in float32 or in INT8; runs in OpenVINO's own environment.

    python -m tests.bench.peers.tower_to_openvino GRAPH FOLDER IMAGES

With images in that folder NNCF quantizes weights and activations by them, as it does for
transformers: SmoothQuant, and attention's products too where it finds them safe. Without any the
weights stay as they are.
"""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nncf  # type: ignore[import-not-found]
import openvino  # type: ignore[import-not-found]

from tests.bench.drivers.towers import Given, read


def main() -> None:
    """Converts, and quantizes where there are images."""
    graph, target, images = (Path(argument) for argument in sys.argv[1:])
    model = openvino.convert_model(str(graph))
    given = [read(file) for file in sorted(images.glob("*.npz"))]
    if given:
        names = {name for port in model.inputs for name in port.get_names()}
        model = nncf.quantize(
            model,
            nncf.Dataset(given, lambda image: _feeds(image, names)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(given),
        )
    openvino.save_model(model, target / "model.xml", compress_to_fp16=False)


def _feeds(image: Given, names: Collection[str]) -> dict[str, Any]:
    feeds = {"pixel_values": image.pixels, **image.feeds}
    return {name: feeds[name] for name in names}


if __name__ == "__main__":
    main()
