"""What the fast form's rounding costs: its features beside the exact form's, on sample images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.export.vision.likeness import likeness
from deploy.export.vision.samples import Sample, SampleShape, samples
from deploy.export.vision.writer import EXACT_NAME, FAST_NAME
from kernels import library
from protos.media.grid_inputs import GridSettings, grid_inputs

SEED = 2  # images that the rounding has not seen
PATCHES = 1500

FloatArray = npt.NDArray[np.float32]


def measured(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Runs both forms on the same images.

    Args:
        folder: The bundle's vision folder, both graphs in it.
        config: The checkpoint's vision_config.

    Returns:
        The manifest's entry: `levels`, the embeddings first, have the cosines of their tokens with
        the exact form's, `mean`, `first_percentile` and `least`. None where Tandem's operators
        cannot run.
    """
    if library.path() is None:
        return None
    images = samples(SampleShape.from_config(config), PATCHES, SEED)
    settings = GridSettings.from_config(config)
    made, wanted = (_features(folder / name, images, settings) for name in (FAST_NAME, EXACT_NAME))
    return {
        "reference": "the same checkpoint's float32 tower",
        "images": len(images),
        "tokens": sum(one.shape[1] for one in wanted),
        "levels": [asdict(level) for level in likeness(made, wanted)],
    }


def _features(graph: Path, images: Sequence[Sample], settings: GridSettings) -> list[FloatArray]:
    """Of each image alone, float32 [levels, N, H]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library.path()))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return [
        np.stack(
            session.run(
                None,
                {
                    "pixel_values": image.patches,
                    **grid_inputs([image.grid], settings).feeds(),
                },
            )
        )
        for image in images
    ]
