"""Features on their way in: pieces of spans, put together and checked for gaps and doubles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder_service.sequence.request import Span
from protos.tandem.v1 import decoder_pb2
from protos.wire import features
from protos.wire.errors import InvalidRequest, Reason

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRows:
    """Rows `row_offset` and on of one level of one span; values are float32 [rows, hidden]."""

    span_index: int
    level: int
    row_offset: int
    values: FloatArray


def feature_rows_from_proto(message: decoder_pb2.SpanFeatures, hidden_size: int) -> FeatureRows:
    """Decodes one chunk of features.

    Raises:
        InvalidRequest: dtype, shape, no rows, or non-finite values.
        ServiceError: DATA_LOSS when the checksum does not fit the bytes.
    """
    chunk, field = message.chunk, "features.chunk.values"
    values = features.values_from_proto(chunk, field="features.chunk", hidden_size=hidden_size)
    if len(values) == 0:
        raise InvalidRequest(
            f"{field} has no rows, expected at least 1",
            reason=Reason.SHAPE_MISMATCH,
            param=field,
        )
    return FeatureRows(
        span_index=message.span_index,
        level=chunk.level,
        row_offset=chunk.row_offset,
        values=values,
    )


class _Assembly:
    """One span's features while they arrive."""

    def __init__(self, level_count: int, row_count: int, hidden_size: int) -> None:
        self.values = np.empty((level_count, row_count, hidden_size), dtype=np.float32)
        self.arrived = np.zeros((level_count, row_count), dtype=np.bool_)
        self.missing = level_count * row_count


class FeatureIntake:
    """Collects the features of one sequence's needed spans.

    Args:
        spans: The sequence's spans.
        needed: Indices of the spans whose features must come.
        level_count: Embeddings and DeepStack levels together.
        hidden_size: Width of a row.
    """

    def __init__(
        self, spans: Sequence[Span], needed: Sequence[int], *, level_count: int, hidden_size: int
    ) -> None:
        self._spans = spans
        self._waiting = set(needed)
        self._needed = frozenset(needed)
        self._level_count = level_count
        self._hidden_size = hidden_size
        self._assemblies: dict[int, _Assembly] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every needed row has arrived."""
        return not self._waiting

    def add(self, rows: FeatureRows) -> FloatArray | None:
        """Takes some rows.

        Returns:
            The span's features, float32 [levels, N, hidden], once its last row has come.

        Raises:
            InvalidRequest: a span that is not needed, a level or row out of range, or rows
                that came before.
        """
        self._check_place(rows)
        index, first = rows.span_index, rows.row_offset
        last = first + len(rows.values)
        assembly = self._assemblies.get(index)
        if assembly is None and index in self._waiting:
            assembly = _Assembly(self._level_count, self._spans[index].length, self._hidden_size)
            self._assemblies[index] = assembly
        if assembly is None or assembly.arrived[rows.level, first:last].any():
            raise InvalidRequest(
                f"features of span {index}, level {rows.level} hold rows of {first} to {last - 1}"
                " for the second time, expected each row once",
                reason=Reason.INVALID_SPAN,
                param="features.chunk.row_offset",
            )
        assembly.values[rows.level, first:last] = rows.values
        assembly.arrived[rows.level, first:last] = True
        assembly.missing -= last - first
        if assembly.missing:
            return None
        self._waiting.discard(index)
        return self._assemblies.pop(index).values

    def check_span(self, span_index: int) -> None:
        """Checks that a span's features are needed at all.

        Raises:
            InvalidRequest: they are not.
        """
        if span_index not in self._needed:
            raise InvalidRequest(
                f"features.span_index is {span_index}, expected one of the needed spans"
                f" {sorted(self._needed)[:8]}",
                reason=Reason.INVALID_SPAN,
                param="features.span_index",
            )

    def _check_place(self, rows: FeatureRows) -> None:
        self.check_span(rows.span_index)
        if not 0 <= rows.level < self._level_count:
            raise InvalidRequest(
                f"features.chunk.level is {rows.level}, expected 0 to {self._level_count - 1}",
                reason=Reason.INVALID_SPAN,
                param="features.chunk.level",
            )
        length = self._spans[rows.span_index].length
        if rows.row_offset < 0 or rows.row_offset + len(rows.values) > length:
            raise InvalidRequest(
                f"features.chunk has {len(rows.values)} rows from row {rows.row_offset} on,"
                f" span {rows.span_index} has {length}",
                reason=Reason.INVALID_SPAN,
                param="features.chunk.row_offset",
            )

    def missing(self) -> InvalidRequest:
        """The error of a client that ended before everything came."""
        index = min(self._waiting)
        total = self._level_count * self._spans[index].length
        assembly = self._assemblies.get(index)
        got = total - (assembly.missing if assembly is not None else total)
        return InvalidRequest(
            f"the features of span {index} are incomplete: {got} of {total} rows came before"
            " the client ended the stream",
            reason=Reason.INVALID_SPAN,
            param="features",
        )
