"""What tracing costs a gateway: processor time a streamed answer, without and with it.

    python -m tests.bench.tracing_cost [--rounds 6] [--answers 150]

Three gateways, each a process of its own before the same fake tiers, answer short rounds in turn:
one does not trace, one traces no request (ratio 0), one every request (ratio 1). Of each the least
round counts. Processor time, not the clock, because a busy machine cannot lengthen it much; its
inverse is what one core can answer. The last line is JSON.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from protos.bundle.manifest import Bundle
from tests.support.bundles import bundle
from tests.support.collector import collecting
from tests.unit.gateway.fakes import FakeDecoder, FakeVision

AT_ONCE = 8
TOKENS = 64


class Gateway:
    """One gateway process and the least processor time a round of it took."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.times = psutil.Process(process.pid)
        self.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self.least_ms = float("inf")

    @classmethod
    async def started(cls, folder: Path, tiers: Sequence[str], *flags: str) -> "Gateway":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", f"--bundle={folder}", *tiers, *flags),
            *("--http-port=0", "--grpc-port=0", "--log-level=WARNING"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        return cls(process, json.loads(await process.stdout.readline())["ports"]["http"])

    async def round(self, client: httpx.AsyncClient, answers: int) -> None:
        before_s = sum(self.times.cpu_times()[:2])
        left = iter(range(answers))

        async def ask() -> None:
            for _ in left:
                body = {"messages": [{"role": "user", "content": "Hello?"}], "stream": True}
                await client.post(self.url, json=body)

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        took_s = sum(self.times.cpu_times()[:2]) - before_s
        self.least_ms = min(self.least_ms, took_s / answers * 1e3)


async def measured(folder: Path, rounds: int, answers: int) -> dict[str, float]:
    """Milliseconds of processor time an answer, by how much is traced."""
    served = Bundle.open(folder)
    with collecting() as collector:
        async with FakeVision(served) as vision, FakeDecoder(served) as decoder:
            decoder.tokens = list(range(100, 100 + TOKENS))
            tiers = (f"--vision={vision.address}", f"--decoder={decoder.address}")
            to = f"--trace-endpoint={collector.endpoint}"
            gateways = {
                "off": await Gateway.started(folder, tiers),
                "off again": await Gateway.started(folder, tiers),
                "ratio 0": await Gateway.started(folder, tiers, to),
                "ratio 1": await Gateway.started(folder, tiers, to, "--trace-ratio=1"),
            }
            async with httpx.AsyncClient(timeout=60.0) as client:
                for _ in range(rounds + 1):  # the first warms up, and is seldom the least
                    for gateway in gateways.values():
                        await gateway.round(client, answers)
            for gateway in gateways.values():
                gateway.process.terminate()
                await gateway.process.wait()
        assert len(collector.spans) == 3 * (rounds + 1) * answers, "every request was traced"
    return {name: round(gateway.least_ms, 3) for name, gateway in gateways.items()}


def main() -> int:
    """Prints a table, then one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--answers", type=int, default=150)
    given = parser.parse_args()
    found = asyncio.run(measured(bundle("tied"), given.rounds, given.answers))
    for name, took_ms in found.items():
        print(f"{name:10} {took_ms:7.3f} ms an answer, {took_ms / found['off'] - 1:+.1%}")
    load = os.getloadavg()[0]
    print(json.dumps({"tokens": TOKENS, "load": round(load, 1), "ms": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
