"""Addresses join, leave, hang and come back, and calls go where they are answered."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from gateway.fleet import words
from gateway.fleet.discovery import Discovery
from gateway.fleet.names import Names
from gateway.fleet.router import Endpoint, State
from gateway.fleet.sources import source_of
from gateway.fleet.standing import Trust
from gateway.tiers import watch
from gateway.tiers.decoder import DecoderClient
from gateway.tiers.tier import TierClient
from gateway.tiers.watch import Watching
from protos.bundle.manifest import Bundle, BundleError
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import ModelMismatch, Reason, Unavailable, from_rpc_error
from tests.support.bundles import ROOT
from tests.unit.gateway.fakes import Context, FakeDecoder
from tests.unit.gateway.fleet.name_server import name_server
from tests.unit.gateway.stage import staged, user


def client(
    bundle: Bundle,
    *entries: str,
    interval_s: float = 0.05,
    wait_s: float = 0.0,
    names: Names | None = None,
) -> DecoderClient:
    return DecoderClient(
        Discovery("decoder", [source_of(entry) for entry in entries], names=names),
        bundle_digest=bundle.digest,
        watching=Watching(interval_s=interval_s, discover_interval_s=0.05, wait_s=wait_s),
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


def states(made: TierClient) -> dict[str, State]:
    return {endpoint.address: endpoint.state for endpoint in made.router.endpoints}


async def test_a_decoder_that_left_ends_its_streams_and_gets_no_new_ones(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_UNUSED_S", 0.05)
    path = tmp_path / "decoders"
    async with FakeDecoder(bundle) as old, FakeDecoder(bundle) as new:
        path.write_text(f"{old.address}\n")
        async with staged(bundle, decoder=f"file:{path}", discover_interval_s=0.05) as stage:
            old.tokens = new.tokens = stage.tokenizer.encode_text("one two")
            old.pause_after = 1
            streaming = asyncio.create_task(stage.post(messages=user(), stream=True))
            await old.stalling.wait()
            path.write_text(f"{new.address}\n")
            made = stage.gateway._decoder
            await until(lambda: states(made) == {new.address: State.SERVING})
            for _ in range(3):
                assert (await stage.post(messages=user())).status_code == 200
            assert len(made.channels) == 2
            old.resume.set()
            assert "[DONE]" in (await streaming).text
            await until(lambda: [each.address for each in made.channels] == [new.address])
            assert (len(old.starts), len(new.starts)) == (1, 3)


async def test_an_address_that_joined_is_looked_at_before_it_is_called(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "decoders"
    async with FakeDecoder(bundle) as decoder:
        path.write_text(f"{decoder.address}\n")
        async with client(bundle, f"file:{path}") as made:
            path.write_text(f"{decoder.address}\n127.0.0.1:9\n")
            await until(lambda: len(made.router.endpoints) == 2)
            chosen = {(await made.ready()).address for _ in range(8)}
            assert chosen == {decoder.address}


async def test_two_bundles_under_one_name_are_told_apart_and_looked_at_again(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A rolling change: gateways of both bundles see the addresses of both."""
    async with FakeDecoder(bundle) as old, name_server() as server:
        new = FakeDecoder(bundle, port=old.port)
        server.records["d.example", "A"] = ["127.0.0.1"]
        old.digest = "0" * 64
        name = f"dns:d.example:{old.port}"
        async with client(bundle, name, names=server.names()) as made:
            assert states(made) == {old.address: State.MISMATCHED}
            with pytest.raises(ModelMismatch):
                await made.ready()
            path = tmp_path / "both"
            async with FakeDecoder(bundle) as second:
                path.write_text(f"{old.address}\n{second.address}\n")
                async with client(bundle, f"file:{path}") as both:
                    assert {(await both.ready()).address for _ in range(4)} == {second.address}
            await old.die()
            async with new:
                await until(lambda: states(made) == {new.address: State.SERVING})
        with pytest.raises(BundleError):
            async with FakeDecoder(bundle) as wrong:
                wrong.digest = "0" * 64
                async with client(bundle, wrong.address):
                    pass


@asynccontextmanager
async def stub_process(digest: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A decoder process that answers looks, and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.unit.gateway.tiers.stub_decoder", digest),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


async def test_a_stopped_process_is_set_aside_and_let_back_by_trial(bundle: Bundle) -> None:
    async with FakeDecoder(bundle) as peer, stub_process(bundle.digest) as (process, address):
        async with client(bundle, address, peer.address, interval_s=0.5) as made:
            stopped = made.router.endpoints[0]
            await until(
                lambda: stopped.state is State.SERVING and len(stopped.standing.looks_s) > 1
            )
            process.send_signal(signal.SIGSTOP)
            begun_s = time.monotonic()
            await until(lambda: stopped.standing.trust is Trust.EJECTED)
            assert time.monotonic() - begun_s < 3.0
            for _ in range(4):
                assert (await made.ready()).address == peer.address
            process.send_signal(signal.SIGCONT)
            await until(lambda: stopped.standing.trust is Trust.TRIAL)
            made.note_success(stopped)
            assert stopped.condition == State.SERVING


async def test_a_call_without_a_first_message_is_over_soon_and_its_address_set_aside(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "LEAST_S", 0.2)

    async def quick() -> str:
        return "admitted"

    async with FakeDecoder(bundle) as one, FakeDecoder(bundle) as two:
        async with client(bundle, one.address, two.address, interval_s=60.0) as made:
            endpoint = made.router.endpoints[0]
            assert await made.first_word(endpoint, quick()) == "admitted"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await made.first_word(endpoint, asyncio.Event().wait())
            failure = from_rpc_error(caught.value, unavailable=Reason.DECODER_UNAVAILABLE)
            assert failure.reason is Reason.DECODER_UNAVAILABLE
            assert failure.retry_after_s is not None
            assert endpoint.condition == Trust.EJECTED
            assert (await made.ready()) is made.router.endpoints[1]


class HungDecoder(FakeDecoder):
    """Never admits anything."""

    async def Generate(
        self, requests: AsyncIterator[decoder_pb2.GenerateRequest], context: Context
    ) -> AsyncIterator[decoder_pb2.GenerateResponse]:
        await asyncio.Event().wait()
        yield decoder_pb2.GenerateResponse()


async def test_a_decoder_that_hangs_before_admission_costs_a_request_seconds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers looks: only its silence tells."""
    monkeypatch.setattr(words, "LEAST_S", 0.2)
    async with HungDecoder(bundle) as hung, staged(bundle, decoder=hung.address) as stage:
        response = await stage.post(messages=user())
        assert response.status_code == 503
        assert response.headers["retry-after"]


def silent_address(stack: ExitStack) -> str:
    """Takes connections and never says a word."""
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_tier_of_hung_addresses_is_not_waited_for(bundle: Bundle) -> None:
    """Looks at one after the other would take two seconds each."""
    with ExitStack() as stack:
        made = client(bundle)
        made.router.update([silent_address(stack) for _ in range(4)])
        begun_s = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await made.ready()
        assert time.monotonic() - begun_s < 2.0  # a second and a busy machine
        assert caught.value.retry_after_s is not None
        await made.__aexit__()


async def test_a_call_may_wait_for_a_tier_that_comes_back(bundle: Bundle) -> None:
    async with FakeDecoder(bundle) as first:
        async with client(bundle, first.address, wait_s=20.0) as made:
            await first.die()
            await until(lambda: states(made) == {first.address: State.UNREACHABLE})
            waiting = asyncio.create_task(made.ready())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            async with FakeDecoder(bundle, port=first.port):
                endpoint: Endpoint = await waiting
                assert endpoint.address == first.address
