"""`python -m gateway` as a process between fake tiers: its line, its signals, its refusals."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.prompt.tokenizer import PromptTokenizer
from protos.bundle.manifest import Bundle
from tests.support.bundles import checkpoint
from tests.support.prompts import processor_bundle
from tests.unit.gateway.fakes import FakeDecoder, FakeVision
from tests.unit.gateway.stage import user

ROOT = Path(__file__).parents[2]
URL = "/v1/chat/completions"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return processor_bundle(checkpoint("tied"), tmp_path_factory.mktemp("process") / "bundle")


async def spawn(*flags: str) -> Process:
    command = (sys.executable, "-m", "gateway", "--http-port", "0", "--grpc-port", "0", *flags)
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)


async def refused(*flags: str) -> str:
    """Runs a gateway that cannot start; returns what it wrote."""
    process = await spawn(*flags)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    return err.decode()


def last_line(text: str) -> str:
    """The only line besides logs, which are JSON objects when stderr is no terminal."""
    plain = [line for line in text.splitlines() if not line.startswith("{")]
    assert len(plain) == 1, text
    return plain[0]


@dataclass(slots=True, kw_only=True)
class Running:
    """A gateway process and what is behind it."""

    process: Process
    ports: dict[str, int]
    decoder: FakeDecoder
    client: httpx.AsyncClient


@asynccontextmanager
async def running(bundle: Bundle, *flags: str) -> AsyncIterator[Running]:
    async with FakeVision(bundle) as vision, FakeDecoder(bundle) as decoder:
        tokenizer = PromptTokenizer.from_folder(bundle.path / "processor")
        decoder.tokens = tokenizer.encode_text("one two three")
        places = ("--vision", vision.address, "--decoder", decoder.address)
        process = await spawn("--bundle", str(bundle.path), *places, *flags)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                line = json.loads(await process.stdout.readline())
            assert (line["event"], line["tier"]) == ("serving", "gateway")
            base = f"http://127.0.0.1:{line['ports']['http']}"
            async with httpx.AsyncClient(base_url=base, timeout=20) as client:
                yield Running(process=process, ports=line["ports"], decoder=decoder, client=client)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_it_says_when_it_serves_and_is_ready_then(bundle: Bundle) -> None:
    async with running(bundle) as gateway:
        assert set(gateway.ports) == {"http", "grpc"}
        health = await gateway.client.get("/health")
        assert health.json()["status"] == "ok"
        answer = await gateway.client.post(URL, json={"messages": user()})
        assert answer.json()["choices"][0]["message"]["content"] == "one two three"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_gateway_stops_cleanly_on_a_signal(
    bundle: Bundle, number: signal.Signals
) -> None:
    async with running(bundle) as gateway:
        gateway.process.send_signal(number)
        async with asyncio.timeout(30):
            out, err = await gateway.process.communicate()
        assert gateway.process.returncode == 0
        assert out == b""
        assert b"Traceback" not in err


async def test_a_running_stream_is_finished_before_it_stops(bundle: Bundle) -> None:
    async with running(bundle) as gateway:
        gateway.decoder.pause_after = 1
        request = {"messages": user(), "stream": True}
        async with gateway.client.stream("POST", URL, json=request) as response:
            await gateway.decoder.stalling.wait()
            gateway.process.terminate()
            async with asyncio.timeout(30):
                await _closed(gateway.ports["http"])
            gateway.decoder.resume.set()
            text = "".join([piece async for piece in response.aiter_text()])
        assert "[DONE]" in text
        async with asyncio.timeout(30):
            assert await gateway.process.wait() == 0


async def test_draining_ends_after_its_time(bundle: Bundle) -> None:
    async with running(bundle, "--drain-timeout-s", "1") as gateway:
        gateway.decoder.stall_after = 1
        asking = asyncio.create_task(gateway.client.post(URL, json={"messages": user()}))
        await gateway.decoder.stalling.wait()
        gateway.process.terminate()
        async with asyncio.timeout(30):
            assert await gateway.process.wait() == 0
        await asyncio.gather(asking, return_exceptions=True)


async def test_it_starts_before_its_tiers_and_says_that_it_is_not_ready(bundle: Bundle) -> None:
    nobody = "127.0.0.1:9"
    process = await spawn("--bundle", str(bundle.path), "--vision", nobody, "--decoder", nobody)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            ports = json.loads(await process.stdout.readline())["ports"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['http']}") as client:
            assert (await client.get("/health")).status_code == 503
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/health/live")).status_code == 200
            answer = await client.post(URL, json={"messages": user()})
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.json()["error"]["code"] == "decoder_unavailable"
            assert nobody not in answer.text
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port"])
async def test_a_taken_port_ends_it_with_one_line(bundle: Bundle, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        written = await refused("--bundle", str(bundle.path), flag, str(port))
    assert str(port) in last_line(written)


async def test_a_missing_bundle_ends_it_with_one_line(tmp_path: Path) -> None:
    assert "no bundle" in last_line(await refused("--bundle", str(tmp_path / "none")))


async def test_a_damaged_bundle_ends_it_with_one_line(tmp_path: Path) -> None:
    bundle = processor_bundle(checkpoint("tied"), tmp_path / "bundle")
    (bundle.path / "processor" / "tokenizer.json").unlink()
    assert "tokenizer.json" in last_line(await refused("--bundle", str(bundle.path)))


@pytest.mark.parametrize("tier", ["vision", "decoder"])
async def test_a_tier_with_another_bundle_ends_it_with_one_line(bundle: Bundle, tier: str) -> None:
    async with FakeVision(bundle) as vision, FakeDecoder(bundle) as decoder:
        fakes = {"vision": vision, "decoder": decoder}
        fakes[tier].digest = "0" * 64
        places = [f"--{name}={fake.address}" for name, fake in fakes.items()]
        line = last_line(await refused("--bundle", str(bundle.path), *places))
        assert f"the {tier} tier at {fakes[tier].address} serves another bundle" in line
        assert bundle.digest in line


@pytest.mark.parametrize(
    "flags", [("--prot", "1"), ("--http-port", "x"), ("--http-port", "70000"), ("--decoder", "")]
)
async def test_a_wrong_setting_ends_it_with_one_line(
    bundle: Bundle, flags: tuple[str, str]
) -> None:
    written = last_line(await refused("--bundle", str(bundle.path), *flags))
    assert flags[0].removeprefix("--").replace("-", "_").split("_")[0] in written


async def test_the_key_is_never_logged(bundle: Bundle) -> None:
    async with running(bundle, "--api-key", "s3cret-key") as gateway:
        assert (await gateway.client.get("/v1/models")).status_code == 401
        gateway.process.terminate()
        async with asyncio.timeout(30):
            _, err = await gateway.process.communicate()
        assert b"s3cret-key" not in err


async def _closed(port: int) -> None:
    """Waits until nobody listens on a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.02)
