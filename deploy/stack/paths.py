"""Where Tandem keeps what it can make again, and what it remembers of its runs."""

from collections.abc import Mapping
from pathlib import Path


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Folder for exported demo bundles: `$XDG_CACHE_HOME/tandem`, else `~/.cache/tandem`."""
    return _base(environ, "XDG_CACHE_HOME", ".cache") / "tandem"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Folder for logs and history: `$XDG_STATE_HOME/tandem`, else `~/.local/state/tandem`."""
    return _base(environ, "XDG_STATE_HOME", ".local/state") / "tandem"


def log_dir(environ: Mapping[str, str], *, http_port: int) -> Path:
    """Folder for one stack's logs; one per HTTP port, so that old ones do not pile up."""
    return state_dir(environ) / "logs" / str(http_port)


def chat_history(environ: Mapping[str, str]) -> Path:
    """File of the lines typed into `tandem chat`."""
    return state_dir(environ) / "chat_history"


def _base(environ: Mapping[str, str], name: str, fallback: str) -> Path:
    value = environ.get(name, "")
    # The XDG rules: a relative path is to be ignored.
    return Path(value) if value.startswith("/") else Path.home() / fallback
