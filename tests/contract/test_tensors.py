"""Tensors survive the wire for every dtype and shape, and lies about sizes are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.tandem.v1 import tensor_pb2
from protos.wire import tensors
from protos.wire.errors import InvalidRequest, Reason


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_int32_round_trips(array: np.ndarray) -> None:
    back = tensors.int32_from_proto(tensors.to_proto(array), field="x", shape=array.shape)
    assert back.shape == array.shape
    assert np.array_equal(back, array)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2), (1, 0, 4)])
def test_floats_round_trip_to_float32(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape) / 8
    back = tensors.float32_from_proto(
        tensors.to_proto(array.astype(dtype)), field="x", shape=[None] * len(shape)
    )
    assert back.dtype == np.float32
    assert np.array_equal(back, array.astype(np.float32))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
def test_bfloat16_widens_exactly(values: list[float]) -> None:
    bits = np.array(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    message = tensor_pb2.Tensor(
        dtype=tensor_pb2.DTYPE_BFLOAT16,
        shape=[len(values)],
        data=(bits >> 16).astype("<u2").tobytes(),
    )
    back = tensors.float32_from_proto(message, field="x", shape=[None])
    assert np.array_equal(back.view(np.uint32), bits)


@pytest.mark.parametrize(
    ("shape", "data", "dtype", "reason"),
    [
        ([2, 3], b"\0" * 23, tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([2, -3], b"\0" * 24, tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([2, 2**62], b"", tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([2**62, 2**62], b"", tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([6], b"\0" * 24, tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([1] * 4000, b"\0" * 4, tensor_pb2.DTYPE_INT32, Reason.SHAPE_MISMATCH),
        ([2, 3], b"\0" * 24, tensor_pb2.DTYPE_FLOAT32, Reason.UNSUPPORTED_DTYPE),
        ([2, 3], b"\0" * 24, tensor_pb2.DTYPE_UNSPECIFIED, Reason.UNSUPPORTED_DTYPE),
        ([2, 3], b"\0" * 24, 999, Reason.UNSUPPORTED_DTYPE),
    ],
)
def test_lies_are_refused_by_name(
    shape: list[int], data: bytes, dtype: tensor_pb2.DType, reason: Reason
) -> None:
    message = tensor_pb2.Tensor(dtype=dtype, shape=shape, data=data)
    with pytest.raises(InvalidRequest) as caught:
        tensors.int32_from_proto(message, field="position_ids", shape=[None, 3])
    assert caught.value.reason is reason
    assert caught.value.param == "position_ids"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    array = np.array([0, value, 1], np.float32)
    with pytest.raises(InvalidRequest) as caught:
        tensors.float32_from_proto(tensors.to_proto(array), field="x", shape=[3])
    assert caught.value.reason is Reason.NON_FINITE
