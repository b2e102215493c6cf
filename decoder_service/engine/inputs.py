"""What goes into a run: rows of the model's input, made from sequences."""

from collections.abc import Sequence as Many

import numpy as np
import numpy.typing as npt

from decoder_service.model.batch import Segments
from decoder_service.model.embeddings import EmbeddingTable, PlacedFeatures, scatter
from decoder_service.schedule.scheduler import PrefillChunk
from decoder_service.sequence.sequence import Sequence

_NO_ROWS = np.array([], dtype=np.int64)


class StepInputs:
    """Makes rows of sequences.

    Args:
        table: Embeddings of tokens.
        level_count: DeepStack levels.
    """

    def __init__(self, table: EmbeddingTable, level_count: int) -> None:
        self._table = table
        self._level_count = level_count

    def decode(self, sequences: Many[Sequence]) -> Segments:
        """The last token of each decoding sequence, in the order of their slots from 0 on."""
        count = len(sequences)
        assert sequences[-1].slot == count - 1, "decoding sequences hold the first slots"
        past = np.array([s.kv_length for s in sequences], dtype=np.int32)
        deltas = np.array([s.request.position_delta for s in sequences], dtype=np.int64)
        return Segments(
            slot=0,
            past=past,
            embeds=self._table.rows(np.array([s.token_ids[s.kv_length] for s in sequences])),
            position_ids=past + deltas,
            logit_rows=np.arange(count),
        )

    def verify(self, sequence: Sequence, draft: npt.NDArray[np.int32]) -> Segments:
        """The last token of a decoding sequence and a draft of what follows, all with logits."""
        start = sequence.kv_length
        tokens = np.concatenate([sequence.token_ids[start : start + 1], draft])
        places = np.arange(start, start + len(tokens), dtype=np.int32)
        return Segments(
            slot=sequence.held_slot,
            past=places[:1],
            embeds=self._table.rows(tokens),
            position_ids=places + np.int32(sequence.request.position_delta),
            logit_rows=np.arange(len(tokens)),
            as_decoded=True,
        )

    def prefill(self, chunk: PrefillChunk) -> Segments:
        """Tokens of a history, features in the place of placeholders; the last row's logits."""
        sequence = chunk.sequence
        embeds = self._table.rows(sequence.token_ids[chunk.start : chunk.stop])
        deepstack = scatter(embeds, chunk.start, _placed(sequence), self._level_count)
        return Segments(
            slot=sequence.held_slot,
            past=np.array([chunk.start], dtype=np.int32),
            embeds=embeds,
            position_ids=sequence.position_ids(chunk.start, chunk.stop),
            deepstack=deepstack,
            logit_rows=np.array([len(embeds) - 1]) if chunk.is_last else _NO_ROWS,
            as_decoded=chunk.start >= sequence.request.prompt_length,
        )


def _placed(sequence: Sequence) -> list[PlacedFeatures]:
    pairs = zip(sequence.spans, sequence.features, strict=True)
    return [PlacedFeatures(span.offset, values) for span, values in pairs if values is not None]
