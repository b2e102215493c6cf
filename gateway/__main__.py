"""`python -m gateway --bundle DIR`: the process of one gateway."""

import asyncio
import signal
import sys

import uvloop

from gateway.app import Gateway
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.process.main import ServiceProcess, run


async def serve(config: GatewayConfig, process: ServiceProcess) -> int:
    """Serves until the process is to stop, then drains.

    Raises:
        SettingError, BundleError, BindError: the process cannot start.
    """
    bundle = Bundle.open(config.bundle)
    bundle.verify_files(("processor",))
    async with Gateway(config, bundle) as gateway:
        if config.key_file is not None:
            # Without a file to read again, a terminal that closes still ends the process.
            hangup = asyncio.get_running_loop().add_signal_handler
            hangup(signal.SIGHUP, gateway.reload_keys)
        process.announce(
            http=gateway.http_port,
            grpc=gateway.grpc_port,
            metrics=gateway.metrics_port,
            admin=gateway.admin_port,
        )
        await process.stopped()
    return 0


def main() -> int:
    """Runs one gateway; see `protos.process.main.run` for the exit status."""
    return run(
        "gateway",
        tier="gateway",
        config_type=GatewayConfig,
        serve=serve,
        loop_factory=uvloop.new_event_loop,
    )


if __name__ == "__main__":
    sys.exit(main())
