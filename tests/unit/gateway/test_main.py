"""The process of a gateway."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.__main__ import serve
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.process.main import ServiceProcess
from protos.process.settings import SettingError

WEB = '[[keys]]\nname = "web"\nkey = "s3cret-web"\n'


class Announced(ServiceProcess):
    """A process whose line on standard output is an event."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self.announced = asyncio.Event()

    def announce(self, **ports: int | None) -> None:
        self.announced.set()


def config(bundle: Bundle, key_file: Path, text: str) -> GatewayConfig:
    key_file.write_text(text)
    nowhere = "127.0.0.1:1"
    return GatewayConfig(
        bundle=str(bundle.path),
        vision=nowhere,
        decoder=nowhere,
        http_port=0,
        grpc_port=0,
        key_file=str(key_file),
        watch_interval_s=1000.0,
    )


async def test_a_hangup_reads_the_keys_again(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = config(bundle, tmp_path / "keys", WEB)
    process = Announced()
    serving = asyncio.create_task(serve(settings, process))
    try:
        # Before that, the signal would end this process.
        async with asyncio.timeout(30):
            await process.announced.wait()
        config(bundle, tmp_path / "keys", WEB.replace('"web"', '"other"'))
        os.kill(os.getpid(), signal.SIGHUP)
        await said(caplog, "new: other; gone: web")
    finally:
        process.stop.set()
        assert await serving == 0
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


async def test_a_gateway_does_not_start_with_a_broken_file_of_keys(
    bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="key_file"):
        await serve(config(bundle, tmp_path / "keys", "keys = 1"), ServiceProcess("gateway"))


async def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if text in caplog.text:
                return
            await asyncio.sleep(0.02)
