"""`python -m decoder_service --bundle DIR`: the process of one decoder."""

import sys

from decoder_service.app import serve
from decoder_service.config import DecoderConfig
from protos.process.main import run


def main() -> int:
    """Runs one decoder; see `protos.process.main.run` for the exit status."""
    return run("decoder_service", tier="decoder", config_type=DecoderConfig, serve=serve)


if __name__ == "__main__":
    sys.exit(main())
