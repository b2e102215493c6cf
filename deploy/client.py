"""A client of the gateway's gRPC door for the commands on this machine."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.tandem.v1 import decoder_pb2, gateway_pb2, gateway_pb2_grpc, vision_pb2
from protos.wire import channels, features
from protos.wire.credentials import Credentials
from protos.wire.errors import Reason, from_rpc_error
from protos.wire.features import FloatArray

POLL_S = 0.1
TIER_SERVICES = {
    "vision": vision_pb2.DESCRIPTOR.services_by_name["VisionService"].full_name,
    "decoder": decoder_pb2.DESCRIPTOR.services_by_name["DecoderService"].full_name,
}


@dataclass(slots=True)
class Conversation:
    """The turns so far; images and videos come before the text of their turn."""

    messages: list[gateway_pb2.ChatMessage] = field(default_factory=list)

    def ask(
        self,
        text: str,
        images: Sequence[bytes] = (),
        *,
        attachments: Sequence[gateway_pb2.ContentPart] = (),
    ) -> None:
        """Adds a user turn; `attachments` are images and videos already in their form."""
        parts = [gateway_pb2.ContentPart(image=image) for image in images]
        parts.extend(attachments)
        parts.append(gateway_pb2.ContentPart(text=text))
        self.messages.append(gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=parts))

    def answer(self, text: str) -> None:
        """Adds the assistant's turn."""
        parts = [gateway_pb2.ContentPart(text=text)]
        self.messages.append(
            gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_ASSISTANT, content=parts)
        )


def brought(
    prompt: gateway_pb2.PreparedPrompt,
    values: Iterable[FloatArray],
    *,
    form: str = "float32",
    **fields: Any,
) -> Iterator[gateway_pb2.ContinueRequest]:
    """The messages of a Continue call.

    Args:
        prompt: As `Prepare` returned it.
        values: The features of each of its spans, float32 [levels, N, H], finite.
        form: The number format they travel in; one of `protos.wire.features.FORMS`.
        fields: Others of ContinueStart.
    """
    chunks = [list(features.to_chunks(each, form)) for each in values]
    named = [
        gateway_pb2.BroughtFeatures(dtype=each[0].values.dtype, digest=features.digest(each))
        for each in chunks
    ]
    start = gateway_pb2.ContinueStart(prompt=prompt, span_features=named, **fields)
    yield gateway_pb2.ContinueRequest(start=start)
    for index, each in enumerate(chunks):
        for chunk in each:
            part = decoder_pb2.SpanFeatures(span_index=index, chunk=chunk)
            yield gateway_pb2.ContinueRequest(features=part)


class ChatClient:
    """Talks to one gateway. Use as a context manager.

    Args:
        address: `host:port` of its gRPC door.
        api_key: A key of the gateway's.
        credentials: How the door is spoken to with TLS; None: without.

    Raises:
        CredentialError: a file of the credentials cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._channel = channels.open_blocking_channel(
            address, credentials, max_receive_bytes=channels.LARGE_MESSAGE_BYTES
        )
        self._stub = gateway_pb2_grpc.ChatServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def wait_until_serving(self, *, timeout_s: float = 5.0) -> bool:
        """Waits for a gateway that is there but not ready; False at once when none is there."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
            except grpc.RpcError:
                return False
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)

    def tier(self) -> str | None:
        """The tier behind a gateway that this serving address turns out to be, if it is one."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        for tier, service in TIER_SERVICES.items():
            with suppress(grpc.RpcError):  # NOT_FOUND: another server
                stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5.0)
                return tier
        return None

    def complete(self, request: gateway_pb2.ChatRequest) -> Iterator[gateway_pb2.ChatChunk]:
        """Streams an answer; leaving the iterator early cancels it.

        Raises:
            ServiceError: the gateway refused the request or could not finish it.
        """
        yield from self._answers(self._stub.Complete(request, metadata=self._metadata))

    def continued(
        self, requests: Iterable[gateway_pb2.ContinueRequest]
    ) -> Iterator[gateway_pb2.ChatChunk]:
        """Streams the answer to a prepared prompt with features of one's own; see `brought`.

        Raises:
            ServiceError: see `complete`.
        """
        yield from self._answers(self._stub.Continue(iter(requests), metadata=self._metadata))

    def _answers(self, call: Any) -> Iterator[gateway_pb2.ChatChunk]:
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE) from error
        finally:
            call.cancel()  # does nothing when the call has ended

    def prepare(self, request: gateway_pb2.PrepareRequest) -> gateway_pb2.PreparedPrompt:
        """The spliced prompt of a conversation, not run.

        Raises:
            ServiceError: see `complete`.
        """
        try:
            prompt: gateway_pb2.PreparedPrompt = self._stub.Prepare(
                request, timeout=60.0, metadata=self._metadata
            )
            return prompt
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
