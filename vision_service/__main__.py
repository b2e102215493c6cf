"""`python -m vision_service`: sets what libraries read from the environment, then runs."""

import os
import secrets
import sys


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    os.environ.update(_environment())
    # Imported here because gRPC and Ray read the environment when they are imported.
    from vision_service import process

    return process.main()


def _environment() -> dict[str, str]:
    """What Ray and gRPC can be told by environment only.

    The token keeps every other process, on this machine or not, from using the ports Ray opens.
    """
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # gRPC would complain about every process that Ray starts beside our server.
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


if __name__ == "__main__":
    sys.exit(main())
