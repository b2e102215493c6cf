"""Drives Tandem's decoder as users reach it: a process of its own, over gRPC.

python -m tests.bench.drivers.tandem BUNDLE THREADS LOG [FLAG ...]
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from decoder_service.model.sessions import choose_graph
from kernels import library
from protos.bundle.manifest import Bundle
from tests.bench.drivers import protocol
from tests.bench.streams import Stream, Streams
from tests.support.decoder_process import DecoderProcess


class Tandem:
    """One decoder process and its streams.

    Streams cannot be asked to wait: while other engines are measured the whole process group
    stands still, and `decode` begins to count after that.
    """

    def __init__(
        self, bundle: Path, log: Path, flags: Sequence[str], stack: contextlib.ExitStack
    ) -> None:
        opened = Bundle.open(bundle)
        graph = choose_graph(opened, "auto", "auto")
        self._description = (
            f"tandem {opened.manifest.model_id}, {graph.precision} blocks of {graph.block_size},"
            f" kernels {graph.kernels} {library.instruction_set()}, KV {graph.kv_dtype}"
        )
        decoder = stack.enter_context(DecoderProcess(bundle, log, flags))
        self._streams = stack.enter_context(Streams(decoder.port))
        self._held: list[Stream] = []

    def describe(self) -> str:
        """Model, weights, kernels and cache."""
        return self._description

    def prefill(self, tokens: int) -> float:
        """From sending a prompt to the arrival of its one token."""
        stream = self._streams.start(protocol.random_ids(tokens), max_tokens=1)
        self._streams.wait(lambda: stream.is_done, [stream])
        return stream.first_token_s

    def hold(self, batch: int, context: int) -> None:
        """Starts the streams and waits until each has a token."""
        limit = protocol.MOST_HELD_TOKENS
        prompts = [protocol.random_ids(context) for _ in range(batch)]
        self._held = [self._streams.start(ids, max_tokens=limit) for ids in prompts]
        self._await_tokens([1] * batch)

    def decode(self, tokens: int) -> list[float]:
        """Time between steps, a step being over when the last stream has its token."""
        start = [len(stream.arrivals) + protocol.WARM_STEPS for stream in self._held]
        self._await_tokens([count + tokens for count in start])
        ends = [
            max(
                stream.arrivals[count - 1 + step]
                for stream, count in zip(self._held, start, strict=True)
            )
            for step in range(tokens + 1)
        ]
        return [after - before for before, after in zip(ends, ends[1:], strict=False)]

    def drop(self) -> None:
        """Cancels the streams."""
        if self._held:
            self._streams.cancel(self._held)
            self._held = []

    def _await_tokens(self, counts: Sequence[int]) -> None:
        held = self._held

        def arrived() -> bool:
            return all(
                len(stream.arrivals) >= count for stream, count in zip(held, counts, strict=True)
            )

        self._streams.wait(lambda: arrived() or any(s.is_done for s in held), held)
        if not arrived():
            raise RuntimeError("a held stream ended: more tokens were asked for than it may have")


def main() -> None:
    """Starts the decoder, drives it, stops it."""
    bundle, log, flags = Path(sys.argv[1]), Path(sys.argv[3]), sys.argv[4:]
    with contextlib.ExitStack() as stack:
        every = [f"--threads={sys.argv[2]}", *flags]
        protocol.serve(lambda: Tandem(bundle, log, every, stack))


if __name__ == "__main__":
    main()
