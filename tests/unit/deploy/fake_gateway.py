"""A gateway that answers from a script, in this process."""

import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from protos.process.server import server_options
from protos.tandem.v1 import decoder_pb2, gateway_pb2, gateway_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES
from protos.wire.errors import ServiceError, to_status


class FakeGateway(gateway_pb2_grpc.ChatServiceServicer):
    """Answers every question with the next scripted answer, word by word.

    `requests` and `metadata` hold what was asked. An answer that is an error ends the stream
    with it. Use as a context manager.
    """

    def __init__(
        self,
        answers: Sequence[str | ServiceError],
        *,
        complete: bool = True,
        pause_s: float = 0.0,
        services: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.requests: list[gateway_pb2.ChatRequest] = []
        self.metadata: list[dict[str, str]] = []
        self._answers = list(answers)
        self._complete = complete  # False: streams end without their last message
        self._pause_s = pause_s  # before every word but the first
        self._services = ("", *services)  # which health is told of
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=4), options=server_options(LARGE_MESSAGE_BYTES)
        )
        gateway_pb2_grpc.add_ChatServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health(), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()

    def _health(self) -> health.HealthServicer:
        servicer = health.HealthServicer()
        for service in self._services:
            servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        return servicer

    def Complete(
        self, request: gateway_pb2.ChatRequest, context: Any
    ) -> Iterator[gateway_pb2.ChatChunk]:
        """The scripted answer."""
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self._answers.pop(0)
        if isinstance(answer, ServiceError):
            context.abort_with_status(rpc_status.to_status(to_status(answer)))
            return
        words = answer.split(" ")
        for index, word in enumerate(words):
            time.sleep(self._pause_s if index else 0.0)
            yield gateway_pb2.ChatChunk(text=word if index == 0 else f" {word}", token_ids=[index])
        if self._complete:
            yield gateway_pb2.ChatChunk(completion=_completion(len(words)))


def _completion(tokens: int) -> gateway_pb2.ChatCompletion:
    return gateway_pb2.ChatCompletion(
        finish_reason=decoder_pb2.FINISH_REASON_STOP,
        prompt_tokens=7,
        completion_tokens=tokens,
        timings=gateway_pb2.ChatTimings(first_token_ms=250.0, decode_ms=100.0 * (tokens - 1)),
    )
