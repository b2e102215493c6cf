"""Clients of a benchmark: each request at its moment, whatever became of the others."""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.client import ChatClient, Conversation
from deploy.commands.bench import image
from deploy.costs import questions
from planner.simulation.requests import Arrival
from protos.tandem.v1 import decoder_pb2, gateway_pb2


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: seconds to the first token, between the others, and how late it was asked.

    Attributes:
        began: When it was due, of those that were asked together: since the first could be.
    """

    first_s: float
    gaps: list[float]
    late_s: float
    began: float

    def gaps_until(self, end: float) -> list[float]:
        """Those that began before a moment, as `began` counts them."""
        moments = itertools.accumulate(self.gaps, initial=self.began + self.first_s)
        return [gap for moment, gap in zip(moments, self.gaps, strict=False) if moment < end]


class Clients:
    """Asks each request at its moment, in a thread of its own."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._words = questions.Words()
        self._per_word, self._around = self._tokens_of_words()

    def answers(self, asked: Sequence[Arrival]) -> list[Seen]:
        """All answers, in no order.

        Raises:
            RuntimeError: a request failed.
        """
        requests = [self._request(arrival) for arrival in asked]
        seen: list[Seen] = []
        began = time.perf_counter() + (0.5 if len(asked) > 1 else 0.0)
        threads = [
            threading.Thread(
                target=self._ask, args=(request, began, arrival.moment, seen), daemon=True
            )
            for request, arrival in zip(requests, asked, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(seen) != len(asked):
            raise RuntimeError(f"{len(asked) - len(seen)} of {len(asked)} requests failed")
        return seen

    def _ask(
        self, request: gateway_pb2.ChatRequest, began: float, due: float, seen: list[Seen]
    ) -> None:
        moment = began + due
        time.sleep(max(0.0, moment - time.perf_counter()))
        late_s = time.perf_counter() - moment
        moments = list[float]()
        for chunk in self._client.complete(request):
            moments += [time.perf_counter()] * len(chunk.token_ids)
        if len(moments) != request.stop_conditions.max_tokens:
            return  # which counts as failed
        # From the moment it was due: a late client is the machine's delay, not nobody's.
        gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
        seen.append(Seen(moments[0] - moment, gaps, late_s, due))

    def _request(self, arrival: Arrival) -> gateway_pb2.ChatRequest:
        words = max(1, round((arrival.text_tokens - self._around) / self._per_word))
        side = round(arrival.image_tokens**0.5) * 32
        images = [image(side, side, self._words.number())] if arrival.image_tokens else []
        conversation = Conversation()
        conversation.ask(self._words.text(words), images)
        return gateway_pb2.ChatRequest(
            messages=conversation.messages,
            sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
            stop_conditions=decoder_pb2.StopConditions(
                max_tokens=arrival.output_tokens, ignore_eos=True
            ),
        )

    def _tokens_of_words(self) -> tuple[float, float]:
        """Tokens of a word, and of the template around."""
        counts = []
        for words in (10, 110):
            conversation = Conversation()
            conversation.ask(self._words.text(words))
            request = gateway_pb2.PrepareRequest(messages=conversation.messages)
            counts.append(len(self._client.prepare(request).input_ids))
        each = (counts[1] - counts[0]) / 100
        return each, counts[0] - 10 * each
