"""Questions that no cache has seen, and their answers as a client sees them."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from deploy.client import ChatClient, Conversation
from deploy.commands.bench import image
from protos.tandem.v1 import decoder_pb2, gateway_pb2

STREAM_TOKENS = 64
SETTLING = 4  # tokens of each stream before its gaps count


@dataclass(slots=True, kw_only=True)
class Timed:
    """One answer as its client saw it; seconds."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    timings: gateway_pb2.ChatTimings | None = None
    prompt_tokens: int = 0

    @property
    def first_s(self) -> float:
        """From the request to its first token."""
        return self.arrivals[0] - self.began

    @property
    def spent(self) -> gateway_pb2.ChatTimings:
        """The services' own times; the answer is whole."""
        assert self.timings is not None, "set by the last chunk"
        return self.timings


class Words:
    """Texts that no cache has seen, from their first word on."""

    def __init__(self) -> None:
        self._draw = np.random.default_rng()

    def number(self) -> int:
        """One that was hardly drawn before."""
        return int(self._draw.integers(2**31))

    def text(self, count: int) -> str:
        """So many words of digits."""
        return " ".join(str(word) for word in self._draw.integers(100, 1000, count))


def about_an_image(
    client: ChatClient, words: Words, side: tuple[int, int]
) -> tuple[Conversation, int]:
    """A question about an image that no cache has seen, and the image's patches."""
    conversation = Conversation()
    conversation.ask(words.text(4), [image(*side, words.number())])
    prepared = client.prepare(gateway_pb2.PrepareRequest(messages=conversation.messages))
    return conversation, sum(grid.t * grid.h * grid.w for grid in prepared.grid_thw)


def ask(client: ChatClient, text: str, tokens: int) -> Timed:
    conversation = Conversation()
    conversation.ask(text)
    return timed(client, conversation, tokens)


def timed(client: ChatClient, conversation: Conversation, tokens: int) -> Timed:
    """Asks for some tokens and waits for all of them."""
    found = Timed(began=time.perf_counter())
    for chunk in client.complete(_request(conversation, tokens)):
        found.arrivals += [time.perf_counter()] * len(chunk.token_ids)
        if chunk.HasField("completion"):
            found.timings = chunk.completion.timings
            found.prompt_tokens = chunk.completion.prompt_tokens
    return found


def _request(conversation: Conversation, tokens: int) -> gateway_pb2.ChatRequest:
    """Greedy, and past every end-of-sequence token."""
    return gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=tokens, ignore_eos=True),
    )


def together(client: ChatClient, texts: Sequence[str], most_tokens: int) -> list[Timed]:
    """Asks several questions at once, and leaves when all have decoded together long enough.

    Args:
        client: Of the gateway.
        texts: The questions.
        most_tokens: Of an answer, whatever the others do.
    """
    found = [Timed(began=time.perf_counter()) for _ in texts]

    def ask(one: Timed, text: str) -> None:
        conversation = Conversation()
        conversation.ask(text)
        prompt = client.prepare(gateway_pb2.PrepareRequest(messages=conversation.messages))
        one.prompt_tokens = len(prompt.input_ids)
        for chunk in client.complete(_request(conversation, most_tokens)):
            one.arrivals += [time.perf_counter()] * len(chunk.token_ids)
            if all(len(other.arrivals) > SETTLING + STREAM_TOKENS for other in found):
                break

    with ThreadPoolExecutor(len(texts)) as pool:
        for asked in [pool.submit(ask, one, text) for one, text in zip(found, texts, strict=True)]:
            asked.result()  # raises what it raised
    return found
