"""How much longer a decoder's step takes while the tower computes on another core."""

import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from deploy.client import ChatClient
from deploy.commands.bench import image
from deploy.costs import questions
from deploy.stack.local import LocalStack
from protos.tandem.v1 import vision_pb2, vision_pb2_grpc

# Of answers that decode together, alone and beside passes in turn.
BESIDE = {"rounds": 5, "streams": 4, "tokens": 64, "side": 1024}


def step_beside_pass(stack: LocalStack, client: ChatClient) -> float:
    """How many times as long a step takes while the tower computes on the other core.

    By the decoder's own clock, so that what the first core's other processes do is not in it.
    """
    words = questions.Words()
    alone, beside = list[float](), list[float]()
    _step_s(client, words)  # warms up
    for _ in range(BESIDE["rounds"]):
        alone.append(_step_s(client, words))
        with _passes(stack.addresses["vision"], words):
            beside.append(_step_s(client, words))
    return statistics.median(beside) / statistics.median(alone)


def _step_s(client: ChatClient, words: questions.Words) -> float:
    """Seconds of a step of some sequences, none of them about an image."""
    count, tokens = BESIDE["streams"], BESIDE["tokens"]

    def ask(text: str) -> float:
        found = questions.ask(client, text, tokens)
        return found.spent.decode_ms / 1e3 / (tokens - 1)

    with ThreadPoolExecutor(count) as pool:
        return statistics.median(pool.map(ask, [words.text(16) for _ in range(count)]))


@contextmanager
def _passes(vision: str, words: questions.Words) -> Iterator[None]:
    """The tower computes one image after the other meanwhile; nobody wants their features."""
    over, running = threading.Event(), threading.Event()

    def encode() -> None:
        with grpc.insecure_channel(vision) as channel:
            stub = vision_pb2_grpc.VisionServiceStub(channel)
            while not over.is_set():
                file = image(BESIDE["side"], BESIDE["side"], words.number())
                for _ in stub.Encode(vision_pb2.EncodeRequest(image=file)):
                    running.set()

    thread = threading.Thread(target=encode)
    thread.start()
    running.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()
