"""What crosses Ray is plain, and the same on the other side."""

from typing import Any

import numpy as np
import pytest

from protos.media.images import Grid, PixelRange
from protos.tandem.v1 import vision_pb2
from vision_service.jobs import Encoded, EncodedImage, EncodeJob, Patches

PLAIN = {bytes, str, float, tuple, dict, np.ndarray, type(None)}


@pytest.mark.parametrize("expected", [None, Grid(1, 4, 6)])
@pytest.mark.parametrize("areas", [None, PixelRange(64, 4096)])
def test_an_image_crosses_with_the_grid_its_sender_expects(
    expected: Grid | None, areas: PixelRange | None
) -> None:
    job = EncodeJob(source=EncodedImage(data=b"file", expected_grid=expected, areas=areas))
    plain = job.to_plain()
    assert {type(value) for value in plain.values()} <= PLAIN
    assert EncodeJob.from_plain(plain) == job


def test_patches_cross_with_their_grid() -> None:
    pixels = np.arange(8, dtype=np.float32).reshape(4, 2)
    plain = EncodeJob(source=Patches(pixels, Grid(1, 2, 2))).to_plain()
    assert {type(value) for value in plain.values()} <= PLAIN
    source: Any = EncodeJob.from_plain(plain).source
    assert source.grid == Grid(1, 2, 2)
    assert source.pixel_values is pixels


def test_a_result_crosses_with_every_figure_of_its_summary() -> None:
    summary = vision_pb2.EncodeSummary(queue_ms=0, preprocess_ms=2.5, encode_ms=3)
    features = np.zeros((2, 1, 3), dtype=np.float32)
    plain = Encoded(grid=Grid(1, 2, 2), features=features, summary=summary).to_plain()
    assert {type(value) for value in (*plain.values(), *plain["summary"].values())} <= PLAIN
    assert Encoded.from_plain(plain).summary == summary
