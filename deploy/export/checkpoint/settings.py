"""What a checkpoint says besides its weights: first config.json alone, then every settings file.

A download asks in this order too, so that a checkpoint that cannot be served is refused before
its weights are fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deploy.export.checkpoint import generation, processor
from deploy.export.errors import ExportError
from deploy.export.families.family import Family
from deploy.export.families.registry import family_of, instead_of
from deploy.export.json_keys import read_object, require
from protos.bundle.manifest import SpecialTokens, TextDims, VisionDims

# Where transformers looks for how weights were quantized, now and in older files.
QUANTIZATION_KEYS = ("quantization_config", "compression_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """config.json, checked."""

    family: Family
    raw: Mapping[str, Any]
    text: TextDims
    vision: VisionDims
    tied: bool  # the embedding table is the output weights too

    @classmethod
    def open(cls, path: Path, source: str) -> Self:
        """Reads and checks config.json of the folder `path`.

        Args:
            path: The checkpoint.
            source: Its folder or hub id, for a hint at what to take instead.

        Raises:
            ExportError: the first thing that is missing, inconsistent or unsupported.
        """
        raw = read_object(path, "config.json")
        family = family_of(raw, source)
        for key in QUANTIZATION_KEYS:
            if raw.get(key) is not None:
                raise ExportError(
                    f"config.json has {key}; export the unquantized checkpoint,"
                    f" {instead_of(source, family)}"
                )
        return cls(
            family=family,
            raw=raw,
            text=family.text_dims(raw),
            vision=family.vision_dims(raw),
            # transformers reads this key at the top level only.
            tied=bool(require(raw, "tie_word_embeddings", "config.json", bool)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every settings file, checked."""

    config: ModelConfig
    special_tokens: SpecialTokens
    generation: Mapping[str, Any]
    processor_files: Mapping[str, bytes]  # bundle name -> bytes

    @classmethod
    def open(cls, path: Path, source: str) -> Self:
        """Reads and checks the settings of the folder `path`; see `ModelConfig.open`.

        Raises:
            ExportError: the first thing that is missing, inconsistent or unsupported.
        """
        config = ModelConfig.open(path, source)
        processor.refuse_remote_code(path)
        values = read_object(path, generation.NAME)
        generation.check(values)
        tokens = config.family.special_tokens(config.raw, values)
        files = processor.collect(
            path,
            config.family,
            vision=config.vision,
            tokens=tokens,
            vocab_size=config.text.vocab_size,
        )
        return cls(config=config, special_tokens=tokens, generation=values, processor_files=files)
