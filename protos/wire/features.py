"""Visual features to chunks and back, in the number formats that they may travel in."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from protos.tandem.v1 import tensor_pb2
from protos.wire import tensors
from protos.wire.channels import CHUNK_BYTES
from protos.wire.errors import InvalidRequest, Reason, ServiceError

FloatArray = npt.NDArray[np.float32]

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of one value in each form
FORMS = tuple(BYTES)

# The same by the wire's own number, of everything that is taken.
VALUE_BYTES: Mapping[int, int] = {
    tensor_pb2.DTYPE_FLOAT32: 4,
    tensor_pb2.DTYPE_FLOAT16: 2,
    tensor_pb2.DTYPE_BFLOAT16: 2,
    tensor_pb2.DTYPE_INT8: 1,
}

_INT8_MAX = 127  # -128 is left out, so that a row and its negative differ in signs alone


def to_proto(
    values: FloatArray, *, level: int, row_offset: int, form: str
) -> tensor_pb2.FeatureChunk:
    """Some rows of one level.

    Args:
        values: Finite, float32 [rows, H].
        level: 0 the embeddings, from 1 on DeepStack.
        row_offset: The first row's place in the image.
        form: One of `FORMS`: float32, exactly; bfloat16, rounded; int8, each row rounded to 127
            steps to either side, up to its largest value.
    """
    chunk = tensor_pb2.FeatureChunk()
    fill(chunk, values, level=level, row_offset=row_offset, form=form)
    return chunk


def fill(
    chunk: tensor_pb2.FeatureChunk, values: FloatArray, *, level: int, row_offset: int, form: str
) -> None:
    """Writes some rows of one level, as `to_proto`, into an empty chunk of a larger message.

    To put a chunk that is ready into a message would copy its bytes once more.
    """
    chunk.level, chunk.row_offset = level, row_offset
    scales = b""
    if form == "int8":
        steps, scale = quantized(values)
        data = tensors.fill(chunk.values, steps)
        scales = tensors.fill(chunk.scales, scale)
    elif form == "bfloat16":
        data = tensors.fill_bfloat16(chunk.values, values)
    else:
        assert form == "float32", "one of FORMS"
        data = tensors.fill(chunk.values, values)
    chunk.crc32 = zlib.crc32(scales, zlib.crc32(data))


def parts(values: FloatArray, form: str) -> Iterator[tuple[int, int, FloatArray]]:
    """Level, row offset and rows of every chunk of one image's features.

    Args:
        values: Float32 [levels, N, H].
        form: One of `FORMS`, in which a chunk has at most `CHUNK_BYTES` of values.
    """
    levels, rows, width = values.shape
    step = max(1, CHUNK_BYTES // (width * BYTES[form]))
    for level in range(levels):
        for start in range(0, rows, step):
            yield level, start, values[level, start : start + step]


def to_chunks(values: FloatArray, form: str) -> Iterator[tensor_pb2.FeatureChunk]:
    """All features of one image, in messages of at most `CHUNK_BYTES` of values.

    Args:
        values: Finite, float32 [levels, N, H].
        form: One of `FORMS`; see `to_proto`.
    """
    for level, start, rows in parts(values, form):
        yield to_proto(rows, level=level, row_offset=start, form=form)


def digest(chunks: Sequence[tensor_pb2.FeatureChunk]) -> bytes:
    """Names the features of one image by their bytes, however they were cut: SHA-256, 32 bytes.

    Of each level, from 0 on, the values of its rows in order, and behind them int8's scales.

    Args:
        chunks: All of them, each row of each level once, in any order.
    """
    named = hashlib.sha256()
    ordered = sorted(chunks, key=lambda chunk: (chunk.level, chunk.row_offset))
    for _, level in groupby(ordered, key=lambda chunk: chunk.level):
        parts = list(level)
        for part in parts:
            named.update(part.values.data)
        for part in parts:
            named.update(part.scales.data)
    return named.digest()


def values_from_proto(
    chunk: tensor_pb2.FeatureChunk, *, field: str, hidden_size: int
) -> FloatArray:
    """The rows of a chunk, float32 [rows, H]; read-only where they came so.

    Raises:
        InvalidRequest: dtype, shape, scales of another number than rows, or without int8 values,
            or non-finite values.
        ServiceError: DATA_LOSS when the checksum does not fit the bytes.
    """
    values = f"{field}.values"
    _check_sum(chunk, values)
    is_int8 = chunk.values.dtype == tensor_pb2.DTYPE_INT8
    if is_int8 != chunk.HasField("scales"):
        raise InvalidRequest(
            f"{field}.scales is {'not set' if is_int8 else 'set'}, expected with int8 values, and"
            " with no others",
            reason=Reason.SHAPE_MISMATCH,
            param=f"{field}.scales",
        )
    if not is_int8:
        return tensors.float32_from_proto(chunk.values, field=values, shape=(None, hidden_size))
    steps = tensors.int8_from_proto(chunk.values, field=values, shape=(None, hidden_size))
    scales = tensors.float32_from_proto(chunk.scales, field=f"{field}.scales", shape=(len(steps),))
    rows = dequantized(steps, scales)
    if not np.isfinite(rows).all():
        raise InvalidRequest(
            f"{values} times their scales are beyond float32",
            reason=Reason.NON_FINITE,
            param=values,
        )
    return rows


def rows_of(
    chunk: tensor_pb2.FeatureChunk, begin: int, stop: int, *, row_offset: int
) -> tensor_pb2.FeatureChunk:
    """Some rows of a chunk, by their place in it, as a chunk of their own.

    Args:
        chunk: With whole rows, and scales for each of them where it has scales.
        begin: The first row.
        stop: The row behind the last.
        row_offset: The first row's place in what the new chunk belongs to.

    Raises:
        ServiceError: DATA_LOSS, as `values_from_proto`: a new checksum would hide the damage.
    """
    _check_sum(chunk, "values")
    count, width = chunk.values.shape
    part = tensor_pb2.FeatureChunk(level=chunk.level, row_offset=row_offset)
    part.values.CopyFrom(_rows(chunk.values, begin, stop, (stop - begin, width), count))
    if chunk.HasField("scales"):
        part.scales.CopyFrom(_rows(chunk.scales, begin, stop, (stop - begin,), count))
    part.crc32 = _checksum(part)
    return part


def _check_sum(chunk: tensor_pb2.FeatureChunk, field: str) -> None:
    if chunk.HasField("crc32") and _checksum(chunk) != chunk.crc32:
        raise ServiceError(
            f"{field} does not match its checksum: bytes were damaged on the way",
            reason=Reason.DATA_LOSS,
            param=field,
        )


def _rows(
    values: tensor_pb2.Tensor, begin: int, stop: int, shape: tuple[int, ...], count: int
) -> tensor_pb2.Tensor:
    size = len(values.data) // count
    data = bytes(memoryview(values.data)[begin * size : stop * size])
    return tensor_pb2.Tensor(dtype=values.dtype, shape=shape, data=data)


def quantized(values: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Rows as int8 [rows, H] and their scales, float32 [rows]."""
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    scales = largest / np.float32(_INT8_MAX)
    scales[scales == 0] = 1
    steps = values / scales[:, None]
    return np.rint(steps, out=steps).astype(np.int8), scales


def dequantized(steps: npt.NDArray[np.int8], scales: FloatArray) -> FloatArray:
    """Undoes `quantized`, but for its rounding."""
    with np.errstate(over="ignore"):  # who receives checks for it
        return steps.astype(np.float32) * scales[:, None]


def _checksum(chunk: tensor_pb2.FeatureChunk) -> int:
    return zlib.crc32(chunk.scales.data, zlib.crc32(chunk.values.data))
