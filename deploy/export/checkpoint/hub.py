"""Finds a checkpoint: a folder as it is, a hub id by downloading what an export reads.

What decides whether a checkpoint can be served is small, so it comes first: config.json, then the
other settings, then the headers of the weights' files. Tens of gigabytes follow only after that.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.export.checkpoint import headers
from deploy.export.checkpoint.settings import ModelConfig, Settings
from deploy.export.errors import ExportError

# No pickles, no Python: what is not downloaded cannot be opened by mistake.
CONFIG_PATTERNS = ("config.json",)
SETTINGS_PATTERNS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "model.safetensors.index.json",
)
WEIGHT_PATTERNS = ("*.safetensors",)
PATTERNS = (*CONFIG_PATTERNS, *SETTINGS_PATTERNS, *WEIGHT_PATTERNS)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
COMMIT = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A checkpoint on this disk."""

    path: Path
    model_id: str
    revision: str | None  # the hub's commit, where it came from there


def locate(source: str, *, model_id: str | None = None, revision: str | None = None) -> Located:
    """Resolves what the user named.

    Args:
        source: A folder, or a hub id such as "Qwen/Qwen3-VL-2B-Instruct".
        model_id: The name to serve the model under; the folder's name or hub id by default.
        revision: Branch, tag or commit of a hub id.

    Raises:
        ExportError: neither a folder nor a hub id that can be downloaded.
    """
    folder = Path(source)
    if source and folder.is_dir():
        if revision is not None:
            raise ExportError("--revision goes with a hub id, not with a folder")
        resolved = folder.resolve()
        return Located(path=resolved, model_id=model_id or resolved.name, revision=None)
    if not HUB_ID.match(source):
        raise ExportError(f"{source} is neither a folder nor a hub id like owner/name")
    path = _download_checked(source, revision)
    return Located(path=path, model_id=model_id or source, revision=_commit(path))


def _commit(path: Path) -> str | None:
    """The hub's cache keeps each commit in a folder of its name."""
    return path.name if COMMIT.match(path.name) else None


def _download_checked(hub_id: str, revision: str | None) -> Path:
    path = _download(hub_id, revision, CONFIG_PATTERNS)
    ModelConfig.open(path, hub_id)
    # The rest is of the same commit, though the branch may move meanwhile.
    revision = _commit(path) or revision
    _download(hub_id, revision, SETTINGS_PATTERNS)
    settings = Settings.open(path, hub_id)
    headers.check(hub_id, revision, path, settings.config)
    return _download(hub_id, revision, WEIGHT_PATTERNS)


def _download(hub_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = huggingface_hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=list(patterns)
        )
    except LocalEntryNotFoundError as error:
        raise ExportError(f"the hub cannot be reached and {hub_id} is not in its cache") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise ExportError(f"the hub refused {hub_id} (HTTP {status})") from error
    return Path(found)
