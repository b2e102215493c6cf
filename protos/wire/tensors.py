"""Tensor messages to NumPy arrays and back, with every size checked before allocation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protos.tandem.v1 import tensor_pb2
from protos.wire.errors import InvalidRequest, Reason

_NUMPY_DTYPES: dict[tensor_pb2.DType, np.dtype[np.generic]] = {
    tensor_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DTYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DTYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DTYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DTYPE_INT8: np.dtype("i1"),
}
_WIRE_DTYPES = {dtype: wire for wire, dtype in _NUMPY_DTYPES.items()}
_ELEMENT_BYTES = {
    **{wire: dtype.itemsize for wire, dtype in _NUMPY_DTYPES.items()},
    tensor_pb2.DTYPE_BFLOAT16: 2,
}
_FLOATS = (tensor_pb2.DTYPE_FLOAT32, tensor_pb2.DTYPE_FLOAT16, tensor_pb2.DTYPE_BFLOAT16)

MAX_RANK = 8


def to_proto(array: npt.NDArray[np.generic]) -> tensor_pb2.Tensor:
    """Encodes an array of a wire dtype (float32, float16, int32, int64, uint8, int8).

    Raises:
        TypeError: the dtype has no wire form; a bug of the caller.
    """
    tensor = tensor_pb2.Tensor()
    fill(tensor, array)
    return tensor


def fill(tensor: tensor_pb2.Tensor, array: npt.NDArray[np.generic]) -> bytes:
    """Encodes an array as `to_proto` into an empty message where that stands in another one.

    Returns:
        The message's data; to read the field would copy it, as putting the message elsewhere would.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _WIRE_DTYPES:
        raise TypeError(f"no wire dtype for {array.dtype}")
    return _fill(tensor, _WIRE_DTYPES[dtype], np.asarray(array, dtype=dtype))


def fill_bfloat16(tensor: tensor_pb2.Tensor, array: npt.NDArray[np.float32]) -> bytes:
    """Encodes a finite float32 array as bfloat16, rounded to nearest, ties to even; as `fill`."""
    bits = np.ascontiguousarray(array).view(np.uint32).reshape(array.shape)
    # Half of the last bit that stays, less one where that bit is even, carries as rounding does.
    halves = bits >> 16
    halves &= 1
    halves += bits
    halves += np.uint32(0x7FFF)
    halves >>= 16
    return _fill(tensor, tensor_pb2.DTYPE_BFLOAT16, halves.astype("<u2"))


def _fill(
    tensor: tensor_pb2.Tensor, dtype: tensor_pb2.DType, values: npt.NDArray[np.generic]
) -> bytes:
    tensor.dtype = dtype
    tensor.shape.extend(values.shape)
    tensor.data = data = values.tobytes()
    return data


def check(
    tensor: tensor_pb2.Tensor,
    *,
    field: str,
    dtypes: Sequence[tensor_pb2.DType],
    shape: Sequence[int | None],
) -> bytes:
    """Checks dtype, shape and byte count.

    Args:
        tensor: The message to check.
        field: Name used in errors.
        dtypes: Wire dtypes that are accepted.
        shape: Expected extents; None accepts any extent >= 0.

    Returns:
        The message's data, unchecked; to read the field again would copy it again.

    Raises:
        InvalidRequest: UNSUPPORTED_DTYPE or SHAPE_MISMATCH, naming field, expected and actual.
    """
    if tensor.dtype not in dtypes:
        expected = " or ".join(dtype_name(dtype) for dtype in dtypes)
        raise InvalidRequest(
            f"{field} has dtype {dtype_name(tensor.dtype)}, expected {expected}",
            reason=Reason.UNSUPPORTED_DTYPE,
            param=field,
        )
    actual = tuple(tensor.shape)
    matches = len(actual) == len(shape) and all(
        got >= 0 and (want is None or got == want) for got, want in zip(actual, shape, strict=True)
    )
    if not matches:
        shown = str(list(actual[:MAX_RANK])) + (" ..." if len(actual) > MAX_RANK else "")
        expected = "[" + ", ".join("any" if want is None else str(want) for want in shape) + "]"
        raise InvalidRequest(
            f"{field} has shape {shown}, expected {expected}",
            reason=Reason.SHAPE_MISMATCH,
            param=field,
        )
    wanted_bytes = _ELEMENT_BYTES[tensor.dtype]
    for extent in actual:
        wanted_bytes *= extent
    data = tensor.data
    if len(data) != wanted_bytes:
        raise InvalidRequest(
            f"{field} holds {len(data)} bytes, its shape {list(actual)} implies {wanted_bytes}",
            reason=Reason.SHAPE_MISMATCH,
            param=field,
        )
    return data


def int32_from_proto(
    tensor: tensor_pb2.Tensor, *, field: str, shape: Sequence[int | None]
) -> npt.NDArray[np.int32]:
    """Decodes an int32 tensor; the array is a read-only view of the message's bytes.

    Raises:
        InvalidRequest: see `check`.
    """
    data = check(tensor, field=field, dtypes=(tensor_pb2.DTYPE_INT32,), shape=shape)
    return np.frombuffer(data, dtype="<i4").reshape(tuple(tensor.shape))


def int8_from_proto(
    tensor: tensor_pb2.Tensor, *, field: str, shape: Sequence[int | None]
) -> npt.NDArray[np.int8]:
    """Decodes an int8 tensor; the array is a read-only view of the message's bytes.

    Raises:
        InvalidRequest: see `check`.
    """
    data = check(tensor, field=field, dtypes=(tensor_pb2.DTYPE_INT8,), shape=shape)
    return np.frombuffer(data, dtype="i1").reshape(tuple(tensor.shape))


def float32_from_proto(
    tensor: tensor_pb2.Tensor, *, field: str, shape: Sequence[int | None]
) -> npt.NDArray[np.float32]:
    """Decodes a float32, float16 or bfloat16 tensor to float32, exactly.

    A float32 tensor becomes a read-only view of the message's bytes.

    Raises:
        InvalidRequest: see `check`; NON_FINITE when a value is NaN or infinite.
    """
    data = check(tensor, field=field, dtypes=_FLOATS, shape=shape)
    extents = tuple(tensor.shape)
    if tensor.dtype == tensor_pb2.DTYPE_BFLOAT16:
        halves = np.frombuffer(data, dtype="<u2")
        values = bfloat16_to_float32(halves).reshape(extents)
    else:
        raw = np.frombuffer(data, dtype=_NUMPY_DTYPES[tensor.dtype])
        values = raw.astype(np.float32, copy=False).reshape(extents)
    if not np.isfinite(values).all():
        raise InvalidRequest(
            f"{field} holds NaN or infinite values", reason=Reason.NON_FINITE, param=field
        )
    return values


def bfloat16_to_float32(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widens bfloat16 bit patterns to float32; exact, because bfloat16 is its upper half."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def dtype_name(dtype: int) -> str:
    """What errors call a dtype."""
    if dtype in tensor_pb2.DType.values():
        return tensor_pb2.DType.Name(dtype).removeprefix("DTYPE_").lower()
    return f"unknown ({dtype})"
