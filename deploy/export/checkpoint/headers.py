"""Looks at the weights of a hub's checkpoint before they are downloaded: names and types only.

A safetensors file begins with a header of some kilobytes; the hub serves ranges of files.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.export.checkpoint import weights
from deploy.export.checkpoint.settings import ModelConfig
from deploy.export.errors import ExportError


def check(hub_id: str, revision: str | None, path: Path, config: ModelConfig) -> None:
    """Refuses weights that are stored as anything but floating point.

    Only names are known here, not the model's class: what belongs to a layer ends in "weight" or
    "bias". Buffers of integers, which some trainers store, have other names and are never read.
    Files that lie in the hub's cache already are left to the export itself.

    Raises:
        ExportError: naming the tensor; or the hub has no weights that can be read.
    """
    index = path / weights.INDEX_NAME
    placed = weights.weight_map(index).values() if index.is_file() else [weights.SINGLE_NAME]
    for file in sorted(set(placed)):
        if not (path / file).is_file():
            _check_types(_types(hub_id, file, revision), config)


def _check_types(types: Mapping[str, str], config: ModelConfig) -> None:
    names = config.family.tensors
    for name, dtype in types.items():
        ours = name == names.lm_head or name.startswith((names.text, names.vision))
        if ours and name.endswith(("weight", "bias")) and dtype not in weights.DTYPES:
            raise ExportError(weights.unsupported(name, dtype))


def _types(hub_id: str, file: str, revision: str | None) -> dict[str, str]:
    """Tensor -> safetensors' name of its type; empty where the hub does not answer."""
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, SafetensorsParsingError

    try:
        found = huggingface_hub.HfApi().parse_safetensors_file_metadata(
            hub_id, file, revision=revision
        )
    except EntryNotFoundError as error:
        raise ExportError(f"{hub_id} lacks {file}") from error
    except SafetensorsParsingError as error:
        raise ExportError(f"{file} is not a safetensors file") from error
    except (HfHubHTTPError, httpx.TransportError):
        return {}  # the download that follows says what is wrong with the hub
    return {name: tensor.dtype for name, tensor in found.tensors.items()}
