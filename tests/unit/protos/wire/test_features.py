"""Features survive their way: exactly, or within the rounding of the form they travel in."""

from typing import Any

import numpy as np
import pytest
import torch

from protos.tandem.v1 import tensor_pb2
from protos.wire import features, tensors
from protos.wire.errors import InvalidRequest, Reason, ServiceError

ROWS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) * 30
ROWS[2] = 0
ROWS[3] *= 1e-6


def sent(form: str, rows: Any = ROWS) -> tensor_pb2.FeatureChunk:
    return features.to_proto(rows, level=2, row_offset=7, form=form)


def received(chunk: tensor_pb2.FeatureChunk) -> Any:
    return features.values_from_proto(chunk, field="chunk", hidden_size=8)


@pytest.mark.parametrize("form", features.FORMS)
def test_a_chunk_names_its_place_and_takes_its_forms_bytes(form: str) -> None:
    chunk = sent(form)
    assert (chunk.level, chunk.row_offset) == (2, 7)
    assert len(chunk.values.data) == ROWS.size * features.BYTES[form]


def test_float32_arrives_to_the_bit() -> None:
    assert received(sent("float32")).tobytes() == ROWS.tobytes()


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    ties = np.array([[1.00390625, 1.01171875, -1.00390625, 3e38, 1e-40, 0.1, -0.0, 65504]])
    rows = np.concatenate([ROWS, ties.astype(np.float32)])
    wanted = torch.from_numpy(rows).bfloat16().float().numpy()
    assert received(sent("bfloat16", rows)).tobytes() == wanted.tobytes()


def test_int8_is_off_by_at_most_half_a_step_of_its_row() -> None:
    got = received(sent("int8"))
    steps = np.abs(ROWS).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(got - ROWS) <= steps * 0.5001)
    assert np.abs(got).max() == pytest.approx(np.abs(ROWS).max())


@pytest.mark.parametrize("form", features.FORMS)
def test_damage_on_the_way_is_noticed(form: str) -> None:
    chunk = sent(form)
    part = chunk.scales if form == "int8" else chunk.values
    part.data = bytes([part.data[0] ^ 1]) + part.data[1:]
    with pytest.raises(ServiceError) as caught:
        received(chunk)
    assert caught.value.reason is Reason.DATA_LOSS


@pytest.mark.parametrize("form", features.FORMS)
def test_rows_cut_out_of_a_chunk_are_those_rows(form: str) -> None:
    chunk = sent(form)
    part = features.rows_of(chunk, 1, 4, row_offset=9)
    assert (part.level, part.row_offset) == (2, 9)
    assert received(part).tobytes() == received(chunk)[1:4].tobytes()
    chunk.values.data = bytes([chunk.values.data[0] ^ 1]) + chunk.values.data[1:]
    with pytest.raises(ServiceError) as caught:
        features.rows_of(chunk, 1, 4, row_offset=9)
    assert caught.value.reason is Reason.DATA_LOSS


def without_checksum(form: str, **scales: Any) -> tensor_pb2.FeatureChunk:
    chunk = sent(form)
    chunk.ClearField("crc32")
    chunk.ClearField("scales")
    for value in scales.values():
        chunk.scales.CopyFrom(tensors.to_proto(np.array(value, np.float32)))
    return chunk


@pytest.mark.parametrize(
    ("chunk", "reason", "param"),
    [
        (without_checksum("int8"), Reason.SHAPE_MISMATCH, "chunk.scales"),
        (without_checksum("float32", scales=[1] * 5), Reason.SHAPE_MISMATCH, "chunk.scales"),
        (without_checksum("int8", scales=[1] * 4), Reason.SHAPE_MISMATCH, "chunk.scales"),
        (without_checksum("int8", scales=[np.nan] * 5), Reason.NON_FINITE, "chunk.scales"),
        (without_checksum("int8", scales=[3e38] * 5), Reason.NON_FINITE, "chunk.values"),
    ],
)
def test_scales_that_do_not_fit_are_refused(
    chunk: tensor_pb2.FeatureChunk, reason: Reason, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        received(chunk)
    assert (caught.value.reason, caught.value.param) == (reason, param)
