"""Which release this is."""

import importlib.metadata


def _installed() -> str:
    try:
        return importlib.metadata.version("tandem-vlm")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


VERSION = _installed()
