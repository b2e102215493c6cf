"""Requests to a decoder process, good ones to begin with."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from protos.bundle.manifest import Manifest
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2
from protos.wire import tensors
from protos.wire.channels import channel_options
from protos.wire.errors import ServiceError, from_rpc_error

FloatArray = npt.NDArray[np.float32]
Start = decoder_pb2.GenerateStart


@dataclass(slots=True)
class Answer:
    """What came out of one Generate call."""

    admission: decoder_pb2.Admission | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[decoder_pb2.TokenLogprobs] = field(default_factory=list)
    completion: decoder_pb2.Completion | None = None

    def take(self, response: decoder_pb2.GenerateResponse) -> None:
        """Adds one message."""
        kind = response.WhichOneof("payload")
        if kind == "admission":
            self.admission = response.admission
        elif kind == "tokens":
            assert len(response.tokens.token_ids) > 0
            self.token_ids += response.tokens.token_ids
            self.logprobs += response.tokens.logprobs
        else:
            self.completion = response.completion


def text_ids(manifest: Manifest, length: int, seed: int = 0) -> list[int]:
    """Random ids below every special token."""
    highest = min(manifest.special_tokens.eos) - 10
    ids: list[int] = np.random.default_rng(seed).integers(0, highest, length).tolist()
    return ids


def make_start(
    manifest: Manifest,
    request_id: str,
    *,
    ids: Sequence[int] | None = None,
    spans: Sequence[tuple[int, int]] = (),
    max_tokens: int = 8,
) -> Start:
    """A valid greedy request; placeholders are written over `spans`."""
    token_ids = np.array(text_ids(manifest, 20) if ids is None else ids, dtype=np.int32)
    for offset, length in spans:
        token_ids[offset : offset + length] = manifest.special_tokens.image
    start = Start(
        request_id=request_id,
        input_ids=token_ids.tolist(),
        position_ids=tensors.to_proto(np.tile(np.arange(len(token_ids), dtype=np.int32), (3, 1))),
        visual_spans=[decoder_pb2.VisualSpan(offset=o, length=n) for o, n in spans],
    )
    start.sampling_params.temperature = 0
    start.stop_conditions.max_tokens = max_tokens
    start.stop_conditions.ignore_eos = True
    return start


def make_features(manifest: Manifest, length: int, seed: int = 0) -> FloatArray:
    """Random features of one span, float32 [1 + levels, length, hidden]."""
    shape = (1 + manifest.deepstack_level_count, length, manifest.text.hidden_size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(0.1)


def to_chunks(
    features: FloatArray, span_index: int = 0, rows: int = 3
) -> list[decoder_pb2.GenerateRequest]:
    """Splits features into messages of some rows each, level by level."""
    requests = []
    for level, values in enumerate(features):
        for first in range(0, len(values), rows):
            tensor = tensors.to_proto(values[first : first + rows])
            chunk = tensor_pb2.FeatureChunk(
                level=level, row_offset=first, values=tensor, crc32=zlib.crc32(tensor.data)
            )
            span = decoder_pb2.SpanFeatures(span_index=span_index, chunk=chunk)
            requests.append(decoder_pb2.GenerateRequest(features=span))
    return requests


class WriteRaced(Exception):
    """A write met a call the server was ending: grpc.aio then reports INTERNAL of its own making
    (UnaryStreamCall.write calls set_internal_error) and loses the server's status."""


class DecoderClient:
    """A client of one decoder process."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = decoder_pb2_grpc.DecoderServiceStub(channel)

    def open(self, *, timeout_s: float = 60) -> Any:
        """Begins a Generate call; the caller writes, reads and half-closes."""
        return self.stub.Generate(timeout=timeout_s)

    async def generate(
        self,
        start: Start,
        features: Iterable[decoder_pb2.GenerateRequest] = (),
    ) -> Answer:
        """Runs a whole call.

        Raises:
            ServiceError: what the server answered.
        """
        messages = [decoder_pb2.GenerateRequest(start=start), *features]
        return await self.converse(messages)

    async def converse(
        self,
        messages: Iterable[decoder_pb2.GenerateRequest],
        *,
        half_close: bool = True,
    ) -> Answer:
        """Sends messages as they are and reads to the end.

        Raises:
            ServiceError: what the server answered.
            WriteRaced: gRPC lost the answer.
        """
        call, answer, raced = self.stub.Generate(timeout=60), Answer(), False
        try:
            try:
                for message in messages:
                    await call.write(message)
                if half_close:
                    await call.done_writing()
            except (grpc.RpcError, asyncio.InvalidStateError):
                raced = True
            async for response in call:
                answer.take(response)
        except grpc.RpcError as error:
            if raced and error.code() is grpc.StatusCode.INTERNAL:
                raise WriteRaced from None
            raise from_rpc_error(error) from None
        finally:
            call.cancel()
        if answer.completion is None:
            raise ServiceError("the stream ended without a completion")
        return answer

    async def load(self) -> decoder_pb2.DecoderLoad:
        """GetLoad."""
        answer: decoder_pb2.DecoderLoad = await self.stub.GetLoad(decoder_pb2.GetLoadRequest())
        return answer


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[DecoderClient]:
    """A client of the decoder process on `port`."""
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        yield DecoderClient(channel)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30) -> None:
    """Waits until `condition` comes true."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)  # another process: there is no event to await
