"""What comes out of a run: tokens chosen from logits, and the sequences that end with them."""

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.logprobs import token_logprobs
from decoder_service.sampling.sampler import Mask
from decoder_service.sampling.unending import Unending
from decoder_service.schedule.residency import Residency
from decoder_service.sequence.request import Completion, FinishReason, Token
from decoder_service.sequence.sequence import Sequence, Status, completion
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]


class Output(NamedTuple):
    """What a step made of one sequence; after a `Completion` or an error it is finished."""

    sequence: Sequence
    event: Token | Completion | ServiceError


class StepOutputs:
    """Takes rows of logits back to their sequences.

    Args:
        residency: Where sequences that end give their slots back.
    """

    def __init__(self, residency: Residency) -> None:
        self._residency = residency

    def take(self, sequence: Sequence, logits: FloatArray, now: float) -> list[Output]:
        """Chooses the token behind a sequence's history, and ends the sequence if it is through.

        Args:
            sequence: KV of all its history is there.
            logits: Of its last token, float32 [vocab].
            now: When they came, `time.monotonic` seconds.
        """
        token = self._choose(sequence, logits)
        return self._accept(sequence, token, now) if isinstance(token, Token) else [token]

    def take_draft(
        self, sequence: Sequence, draft: npt.NDArray[np.int32], logits: FloatArray, now: float
    ) -> tuple[list[Output], int]:
        """Takes tokens as long as they are those of a draft, and the one behind.

        Args:
            sequence: The draft is what was thought to follow its history.
            draft: int32 [D].
            logits: Of its last token and of the draft, float32 [1 + D, vocab].
            now: See `take`.

        Returns:
            What came out, and how many tokens of the draft are confirmed.
        """
        outputs, accepted = list[Output](), 0
        sequence.drafted_tokens += len(draft)
        for row in range(len(logits)):
            if row:  # KV of the token that was confirmed last
                self._residency.slots.extend(sequence, sequence.history_length)
            token = self._choose(sequence, logits[row])
            if not isinstance(token, Token):
                return [*outputs, token], accepted
            is_confirmed = row < len(draft) and token.token_id == draft[row]
            accepted += is_confirmed
            sequence.accepted_tokens += is_confirmed  # before a completion is made of them
            outputs += self._accept(sequence, token, now)
            if not is_confirmed or sequence.status is not Status.DECODING:
                break
        return outputs, accepted

    def fail(self, sequence: Sequence) -> Output:
        """Ends a sequence that could not be computed; its KV is of no use."""
        self._residency.end(sequence, is_sound=False)
        return Output(sequence, InternalError("internal error"))

    def _choose(self, sequence: Sequence, logits: FloatArray) -> Token | Output:
        """The next token; or how the sequence ended instead."""
        try:
            token_id = sequence.sampler.choose(logits, _mask(sequence))
            if token_id is not None:
                return _report(sequence, logits, token_id)
        except ServiceError as error:
            self._residency.end(sequence)
            return Output(sequence, error)
        except Exception:  # One row's sampling: it fails alone.
            self._residency.end(sequence)
            logger.exception("sampling failed, request_id=%s", sequence.request.request_id)
            return Output(sequence, InternalError("internal error"))
        self._residency.end(sequence, is_sound=False)
        return Output(sequence, _overflow(sequence))

    def _accept(self, sequence: Sequence, token: Token, now: float) -> list[Output]:
        token_id = token.token_id
        if sequence.times.first_token is None:
            sequence.times.first_token = now
        sequence.times.last_token = now
        sequence.output_count += 1
        if token_id in sequence.request.stop_token_ids:
            return [self._finish(sequence, FinishReason.STOP, token_id)]
        sequence.append(token_id)
        sequence.sampler.observe(token_id)
        if sequence.request.constraint is not None:
            sequence.request.constraint.accept(token_id)
        outputs = [Output(sequence, token)]
        if sequence.output_count == sequence.request.max_tokens:
            outputs.append(self._finish(sequence, FinishReason.LENGTH, None))
        return outputs

    def _finish(
        self, sequence: Sequence, reason: FinishReason, stop_token_id: int | None
    ) -> Output:
        ended = completion(sequence, reason, stop_token_id)
        self._residency.end(sequence)
        return Output(sequence, ended)


def _mask(sequence: Sequence) -> Mask | None:
    """What bans tokens from the sequence's next place."""
    request = sequence.request
    if sequence.output_count >= request.min_tokens or not request.stop_token_ids:
        return request.constraint
    return Unending(request.stop_token_ids, request.constraint)


def _report(sequence: Sequence, logits: FloatArray, token_id: int) -> Token:
    """A token with what its request wants to know; float32 [vocab]."""
    report = sequence.request.report
    return Token(
        token_id=token_id,
        logprobs=token_logprobs(logits, token_id, report.top_logprob_count)
        if report.logprobs
        else None,
        logits=logits.copy() if report.logits else None,
    )


def _overflow(sequence: Sequence) -> ServiceError:
    if sequence.spans:
        return InvalidRequest(
            "the features lead to non-finite logits: their values are too large",
            reason=Reason.NON_FINITE,
            param="features",
        )
    return InternalError("the model produced non-finite logits")
