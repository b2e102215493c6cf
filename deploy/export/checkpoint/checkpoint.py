"""Opens a checkpoint of a known family and refuses, by name, everything that is missing or unknown.

A checkpoint's own files say what the model is: a key that they leave out is refused rather than
filled from a library's class defaults, which belong to no published checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deploy.export.checkpoint import weights
from deploy.export.checkpoint.settings import Settings
from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.errors import ExportError
from deploy.export.families.family import Family, TensorNames
from protos.bundle.manifest import SpecialTokens, TextDims, VisionDims

PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A validated checkpoint."""

    path: Path
    family: Family
    config: Mapping[str, Any]
    text: TextDims
    vision: VisionDims
    special_tokens: SpecialTokens
    generation: Mapping[str, Any]
    tied: bool
    processor_files: Mapping[str, bytes]  # bundle name -> bytes
    tensors: Mapping[str, StoredTensor]  # of floating point: all that a model here computes with
    others: Mapping[str, StoredTensor]  # such as buffers of positions; never read

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads and checks everything but the weights' values.

        Raises:
            ExportError: the first thing that is missing, inconsistent or unsupported.
        """
        if not path.is_dir():
            raise ExportError(f"{path} is not a folder")
        settings = Settings.open(path, str(path))
        config = settings.config
        _refuse_pickles_only(path)
        tensors, others = weights.split(weights.read_index(path))
        if config.tied:
            _check_tied_head(tensors, config.family.tensors)
        return cls(
            path=path,
            family=config.family,
            config=config.raw,
            text=config.text,
            vision=config.vision,
            special_tokens=settings.special_tokens,
            generation={
                key: value
                for key, value in settings.generation.items()
                if key != "transformers_version"
            },
            tied=config.tied,
            processor_files=settings.processor_files,
            tensors=tensors,
            others=others,
        )

    @property
    def embeddings(self) -> StoredTensor:
        """The token embedding table."""
        return self.tensors[self.family.tensors.embeddings]

    @property
    def lm_head(self) -> StoredTensor:
        """The output weights: the embedding table where they are tied."""
        return self.embeddings if self.tied else self.tensors[self.family.tensors.lm_head]

    @property
    def deepstack_levels(self) -> int:
        """DeepStack levels after the embeddings."""
        return len(self.vision.deepstack_visual_indexes)

    def with_prefix(self, prefix: str) -> dict[str, StoredTensor]:
        """The tensors below `prefix`, by their names without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def require(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compares the stored tensors with the names and shapes the model class wants.

        Raises:
            ExportError: a tensor is missing or has another shape.
        """
        for name, shape in shapes.items():
            if name == self.family.tensors.lm_head and self.tied:
                continue
            stored = self.tensors.get(name)
            if name in self.others:
                raise ExportError(weights.unsupported(name, self.others[name].dtype))
            if stored is None:
                raise ExportError(f"the checkpoint's weights lack {name}")
            if stored.shape != shape:
                raise ExportError(
                    f"{name} has shape {list(stored.shape)}, config.json implies {list(shape)}"
                )


def _refuse_pickles_only(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return  # Pickled files beside safetensors, such as training_args.bin, are never opened.
    for file in sorted(path.iterdir()):
        if file.suffix in PICKLED_SUFFIXES:
            raise ExportError(
                f"the checkpoint has only pickled weights ({file.name}), which can run code;"
                " expected safetensors"
            )


def _check_tied_head(tensors: Mapping[str, StoredTensor], names: TensorNames) -> None:
    """A tied checkpoint may store the head too, but then it must be the embedding table."""
    head, table = tensors.get(names.lm_head), tensors.get(names.embeddings)
    if head is None or table is None:
        return
    same = head.dtype == table.dtype and head.shape == table.shape
    if not same or any(a != b for a, b in zip(head.pieces(), table.pieces(), strict=True)):
        raise ExportError(
            f"config.json says tie_word_embeddings, but {names.lm_head} differs from the"
            " embedding table"
        )
