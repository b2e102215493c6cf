"""Many Generate calls on one decoder process, with the arrival time of every token."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc
from protos.wire import tensors
from protos.wire.channels import channel_options
from protos.wire.errors import from_rpc_error

PATIENCE_S = 300.0
GREEDY = decoder_pb2.SamplingParams(temperature=0.0)


@dataclass(slots=True)
class Stream:
    """One call: when it began and when each of its tokens came, seconds of one clock."""

    began: float
    arrivals: list[float] = field(default_factory=list)
    completion: decoder_pb2.Completion | None = None
    error: Exception | None = None
    is_done: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def first_token_s(self) -> float:
        """From the request to its first token."""
        return self.arrivals[0] - self.began


def text_request(
    ids: Sequence[int], max_tokens: int, sampling: decoder_pb2.SamplingParams
) -> decoder_pb2.GenerateRequest:
    """A call for tokens past every end-of-sequence token; its name is still to be given."""
    start = decoder_pb2.GenerateStart(
        input_ids=ids,
        position_ids=tensors.to_proto(np.tile(np.arange(len(ids), dtype=np.int32), (3, 1))),
        sampling_params=sampling,
        stop_conditions=decoder_pb2.StopConditions(max_tokens=max_tokens, ignore_eos=True),
    )
    return decoder_pb2.GenerateRequest(start=start)


class Streams:
    """Calls to the decoder at `port`, run by a loop in a thread. Use as a context manager."""

    def __init__(self, port: int) -> None:
        self._address = f"127.0.0.1:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._news = threading.Condition()
        self._numbers = itertools.count()
        self._channel: Any = None
        self._stub: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._connect())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._channel.close(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(
        self,
        ids: Sequence[int],
        max_tokens: int,
        sampling: decoder_pb2.SamplingParams = GREEDY,
    ) -> Stream:
        """Asks for tokens past every end-of-sequence token; returns at once."""
        return self.send([text_request(ids, max_tokens, sampling)])

    def send(self, requests: Sequence[decoder_pb2.GenerateRequest]) -> Stream:
        """Sends all messages of a call under a name of its own; returns at once."""
        first = decoder_pb2.GenerateRequest()
        first.CopyFrom(requests[0])
        first.start.request_id = f"bench-{next(self._numbers)}"
        stream: Stream = self._run(self._start([first, *requests[1:]]))
        return stream

    def wait(self, condition: Callable[[], bool], streams: Sequence[Stream]) -> None:
        """Blocks until `condition`, which reads the streams, holds.

        Raises:
            ServiceError: one of the streams failed.
            TimeoutError: it did not come true.
        """

        def settled() -> bool:
            return condition() or any(stream.error for stream in streams)

        with self._news:
            held = self._news.wait_for(settled, PATIENCE_S)
        for stream in streams:
            if stream.error is not None:
                raise stream.error
        if not held:
            raise TimeoutError(f"no tokens for {PATIENCE_S:.0f} s")

    def await_tokens(self, streams: Sequence[Stream], count: int) -> None:
        """Blocks until each stream has `count` tokens; see `wait`."""
        self.wait(lambda: all(len(stream.arrivals) >= count for stream in streams), streams)

    def cancel(self, streams: Sequence[Stream]) -> None:
        """Ends calls; their slots are free at the decoder's next step."""
        self._run(self._cancel(streams))

    def load(self) -> decoder_pb2.DecoderLoad:
        """What the decoder says of itself."""
        load: decoder_pb2.DecoderLoad = self._run(self._load())
        return load

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connect(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._address, options=channel_options())
        self._stub = decoder_pb2_grpc.DecoderServiceStub(self._channel)

    async def _load(self) -> Any:
        return await self._stub.GetLoad(decoder_pb2.GetLoadRequest())

    async def _start(self, requests: Sequence[decoder_pb2.GenerateRequest]) -> Stream:
        stream = Stream(began=time.perf_counter())
        stream.task = asyncio.create_task(self._follow(stream, requests))
        return stream

    async def _follow(
        self, stream: Stream, requests: Sequence[decoder_pb2.GenerateRequest]
    ) -> None:
        call = self._stub.Generate()
        try:
            for request in requests:
                await call.write(request)
            await call.done_writing()
            async for response in call:
                if response.WhichOneof("payload") == "tokens":
                    arrived = time.perf_counter()
                    stream.arrivals += [arrived] * len(response.tokens.token_ids)
                    self._notify()
                elif response.WhichOneof("payload") == "completion":
                    stream.completion = response.completion
        except grpc.RpcError as error:
            stream.error = from_rpc_error(error)
        finally:
            call.cancel()
            stream.is_done = True
            self._notify()

    def _notify(self) -> None:
        with self._news:
            self._news.notify_all()

    async def _cancel(self, streams: Sequence[Stream]) -> None:
        tasks = [stream.task for stream in streams if stream.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        deadline = time.monotonic() + PATIENCE_S
        while (await self._load()).running_count:
            if time.monotonic() > deadline:
                raise TimeoutError("the decoder did not free the slots of cancelled calls")
            await asyncio.sleep(0.005)  # another process: there is no event to await
