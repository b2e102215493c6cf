"""`python -m gateway --bundle DIR`: settings, signals, one line when it serves, exit status."""

import asyncio
import dataclasses
import json
import logging
import os
import signal
import sys

from gateway.app import Gateway
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle, BundleError
from protos.process import logs
from protos.process.settings import SettingError, describe, load
from protos.wire.channels import PortTaken

logger = logging.getLogger("gateway")

_HIDDEN = "*" * 16  # as long as the shortest digest key


def main() -> int:
    """Runs one gateway until SIGTERM or SIGINT.

    Returns:
        0 after draining; 2 when a setting, the bundle or a port is wrong.
    """
    try:
        config = load(GatewayConfig, prefix="GATEWAY", argv=sys.argv[1:], environ=os.environ)
        logs.configure(config.log_level)
        logger.info("settings: %s", describe(_shown(config)))
        bundle = Bundle.open(config.bundle)
        bundle.verify_files(("processor",))
        asyncio.run(serve(config, bundle))
    except (SettingError, BundleError, PortTaken) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    return 0


def _shown(config: GatewayConfig) -> GatewayConfig:
    """The settings as they may be logged."""
    return dataclasses.replace(
        config,
        api_key=None if config.api_key is None else _HIDDEN,
        digest_key=None if config.digest_key is None else _HIDDEN,
    )


async def serve(config: GatewayConfig, bundle: Bundle) -> None:
    """Serves until a signal asks to stop, then drains."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with Gateway(config, bundle) as gateway:
        ports = {"http": gateway.http_port, "grpc": gateway.grpc_port}
        line = {"event": "serving", "tier": "gateway", "ports": ports}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stopping.wait()
        logger.info("draining")
    logger.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
