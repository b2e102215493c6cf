"""What the exporter asks a family of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from protos.bundle.manifest import SpecialTokens, TextDims, VisionDims

Config = Mapping[str, Any]  # a JSON object of the checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessorFile:
    """Settings for images or videos that a checkpoint must have, in one of two places."""

    name: str  # of their own file, in the bundle always
    nested_key: str  # where processor_config.json holds them, as transformers 5 saves it
    is_image: bool  # of images; otherwise of videos
    class_key: str  # the key that names the class
    classes: tuple[str, ...]  # of transformers, whose arithmetic the vision tier repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNames:
    """Where the parts of a model lie among a checkpoint's tensors; prefixes end with a dot."""

    text: str  # prefix of the language model
    vision: str  # prefix of the tower
    embeddings: str  # the token embedding table
    lm_head: str  # the output weights; may be absent where they are the embedding table


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family: names, and how to read its config.json.

    The three functions read config.json whole (`special_tokens` generation_config.json too) and
    raise ExportError where a key is missing or has a value that the exporter cannot express.
    """

    name: str  # config.json's `model_type`, and the manifest's family
    published: tuple[str, ...]  # hub ids to name where another checkpoint is refused
    model_class: str  # transformers' class, config.json's only `architectures`
    # onnxruntime-genai's class that builds the language model's graph, and the module it lies in.
    builder_module: str
    builder_class: str
    tensors: TensorNames
    placeholders: Mapping[str, str]  # field of SpecialTokens -> that token in tokenizer.json
    preprocessors: tuple[PreprocessorFile, ...]
    # Whether attention is what `tandem.Attention` computes: norms of every head's queries and keys,
    # interleaved rotary positions, no biases. Other families get portable graphs only.
    has_tandem_attention: bool
    text_dims: Callable[[Config], TextDims]
    vision_dims: Callable[[Config], VisionDims]
    special_tokens: Callable[[Config, Config], SpecialTokens]
