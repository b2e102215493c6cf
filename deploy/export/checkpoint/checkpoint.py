"""Opens a Qwen3-VL checkpoint and refuses, by name, everything that is missing or unknown.

A checkpoint's own files say what the model is: a key that they leave out is refused rather than
filled from a library's class defaults, which belong to no published checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deploy.export.checkpoint import config, processor
from deploy.export.checkpoint.weights import StoredTensor, read_index
from deploy.export.errors import ExportError
from protos.bundle.manifest import SpecialTokens, TextDims, VisionDims

PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

TEXT_PREFIX = "model.language_model."
VISION_PREFIX = "model.visual."
EMBEDDING_NAME = "model.language_model.embed_tokens.weight"
LM_HEAD_NAME = "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A validated checkpoint."""

    path: Path
    config: Mapping[str, Any]
    text: TextDims
    vision: VisionDims
    special_tokens: SpecialTokens
    generation: Mapping[str, Any]
    tied: bool
    processor_files: Mapping[str, bytes]  # bundle name -> bytes
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads and checks everything but the weights' values.

        Raises:
            ExportError: the first thing that is missing, inconsistent or unsupported.
        """
        if not path.is_dir():
            raise ExportError(f"{path} is not a folder")
        raw = read_json(path, "config.json")
        config.check_family(raw)
        processor.refuse_remote_code(path)
        text, vision = config.text_dims(raw), config.vision_dims(raw)
        generation = read_json(path, "generation_config.json")
        tokens = config.special_tokens(raw, generation)
        files = processor.collect(path, vision=vision, tokens=tokens, vocab_size=text.vocab_size)
        _refuse_pickles_only(path)
        tied = config.tied(raw)
        tensors = read_index(path)
        _check_tied_head(tensors, tied=tied)
        return cls(
            path=path,
            config=raw,
            text=text,
            vision=vision,
            special_tokens=tokens,
            generation={
                key: value for key, value in generation.items() if key != "transformers_version"
            },
            tied=tied,
            processor_files=files,
            tensors=tensors,
        )

    @property
    def lm_head(self) -> StoredTensor:
        """The output weights: the embedding table where they are tied."""
        return self.tensors[EMBEDDING_NAME if self.tied else LM_HEAD_NAME]

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
            if name == LM_HEAD_NAME and self.tied:
                continue
            stored = self.tensors.get(name)
            if stored is None:
                raise ExportError(f"the checkpoint's weights lack {name}")
            if stored.shape != shape:
                raise ExportError(
                    f"{name} has shape {list(stored.shape)}, config.json implies {list(shape)}"
                )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads one JSON object of a checkpoint.

    Raises:
        ExportError: the file is missing or no JSON object.
    """
    file = folder / name
    if not file.is_file():
        raise ExportError(f"the checkpoint lacks {name}")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{name} is not valid JSON") from error
    if not isinstance(value, dict):
        raise ExportError(f"{name} is not a JSON object")
    return value


def _refuse_pickles_only(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return  # Pickled files beside safetensors, such as training_args.bin, are never opened.
    for file in sorted(path.iterdir()):
        if file.suffix in PICKLED_SUFFIXES:
            raise ExportError(
                f"the checkpoint has only pickled weights ({file.name}), which can run code;"
                " expected safetensors"
            )


def _check_tied_head(tensors: Mapping[str, StoredTensor], *, tied: bool) -> None:
    """A tied checkpoint may store the head too, but then it must be the embedding table."""
    if not tied or LM_HEAD_NAME not in tensors or EMBEDDING_NAME not in tensors:
        return
    head, table = tensors[LM_HEAD_NAME], tensors[EMBEDDING_NAME]
    same = head.dtype == table.dtype and head.shape == table.shape
    if not same or any(a != b for a, b in zip(head.pieces(), table.pieces(), strict=True)):
        raise ExportError(
            "config.json says tie_word_embeddings, but lm_head.weight differs from the"
            " embedding table"
        )
