"""The demonstration model's held-out questions as calls of the decoder, features included."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from protos.tandem.v1 import decoder_pb2, tensor_pb2
from protos.wire import tensors
from tests.demo_model.evaluation import messages
from tests.demo_model.held_out import question
from tests.support.oracle import Oracle, Prepared

Call = list[decoder_pb2.GenerateRequest]


def questions(checkpoint: Path, skill: str, count: int, max_tokens: int) -> Iterator[Call]:
    """Calls that ask some questions of a skill greedily; earlier turns have the right answers."""
    reference = Oracle(checkpoint)
    for number in range(count):
        asked = question(skill, number)
        pictures = [Image.fromarray(picture) for picture in asked.pictures]
        said = [turn.answer for turn in asked.turns[:-1]]
        prepared = reference.prepare(messages(asked, said), pictures)
        yield _call(reference, prepared, f"{skill}-{number}", max_tokens)


def _call(reference: Oracle, prepared: Prepared, name: str, max_tokens: int) -> Call:
    kinds = np.concatenate([[0], prepared.mm_token_type_ids, [0]])
    edges = np.flatnonzero(np.diff(kinds))
    places = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    start = decoder_pb2.GenerateStart(
        request_id=name,
        input_ids=prepared.input_ids.tolist(),
        position_ids=tensors.to_proto(prepared.position_ids.astype(np.int32)),
        position_delta=prepared.delta,
        visual_spans=[
            decoder_pb2.VisualSpan(offset=offset, length=end - offset) for offset, end in places
        ],
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=max_tokens),
    )
    call = [decoder_pb2.GenerateRequest(start=start)]
    if prepared.pixel_values is None or prepared.image_grid_thw is None:
        return call
    visual = reference.features(prepared.pixel_values, prepared.image_grid_thw)
    levels = np.stack([visual.embeddings, *visual.deepstack])
    for index, (offset, end) in enumerate(places):
        call += [
            _features(index, level, rows) for level, rows in enumerate(levels[:, : end - offset])
        ]
        levels = levels[:, end - offset :]
    return call


def _features(
    span_index: int, level: int, rows: npt.NDArray[np.float32]
) -> decoder_pb2.GenerateRequest:
    values = tensors.to_proto(np.ascontiguousarray(rows))
    chunk = tensor_pb2.FeatureChunk(
        level=level, row_offset=0, values=values, crc32=zlib.crc32(values.data)
    )
    return decoder_pb2.GenerateRequest(
        features=decoder_pb2.SpanFeatures(span_index=span_index, chunk=chunk)
    )
