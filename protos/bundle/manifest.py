"""The bundle on disk: its manifest, its digests, and the checks every tier makes on loading.

bundle/  tandem.json   manifest
         processor/    tokenizer, chat template, image and video settings  (gateway, vision)
         vision/       vision tower: model.safetensors + config.json         (vision)
         decoder/      graphs + data, embedding table                        (decoder)
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

MANIFEST_NAME = "tandem.json"
FORMAT_VERSION = 5
PARTS = ("processor", "vision", "decoder")  # the folders of a bundle

# Files up to this size are hashed at every start; larger ones only by `tandem verify`, because
# hashing gigabytes would dominate start-up. Their sizes are always compared.
HASHED_AT_START_BYTES = 64 * 1024 * 1024
READ_BYTES = 4 * 1024 * 1024  # hashed between two reports of progress

Advance = Callable[[int], None]  # bytes done since the last call


class BundleError(Exception):
    """The bundle is missing, damaged or of another format; the text is one clear line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDims:
    """Shapes of the language model."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionDims:
    """Shapes of the vision tower."""

    depth: int
    hidden_size: int
    out_hidden_size: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    deepstack_visual_indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens the pipeline itself handles."""

    image: int
    video: int
    vision_start: int
    vision_end: int
    eos: tuple[int, ...]  # every id that ends an answer, generation_config's order
    pad: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTable:
    """The token embedding table, a raw row-major file the decoder memory-maps.

    `dtype` is "float32", "float16" or "bfloat16" (bit patterns); shape [vocab_size, hidden_size].
    """

    file: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderGraph:
    """One ONNX graph of the decoder. A bundle holds several of the same model.

    A portable graph (`kernels` "onnxruntime") runs B sequences of S new tokens, R rows with logits;
    more than one sequence only with S = 1. Inputs, by these names:
        inputs_embeds            float32 [B, S, hidden]
        position_ids             int64   [3, B, S]
        seqlens_k                int32   [B]    valid KV length after the run, minus one
        total_sequence_length    int32   []     longest valid KV length after the run
        logit_indices            int64   [R]    rows of the flattened [B * S] to compute logits of
        deepstack_embeds.{i}     float32 [B, S or 1, hidden], one per level
        past_key_values.{l}.key / .value  float32 [B, kv_heads, past or max_len, head_dim]
    Outputs:
        logits                   float32 [R, vocab]
        present.{l}.key / .value          like past; may alias it (bound in place)


    A graph whose `kernels` are "tandem" needs the operators that kernels/ compiles, and a processor
    with AVX2. It runs new tokens of any number N of sequences, R rows in all, and writes their keys
    and values into its inputs:
        inputs_embeds            float32 [1, R, hidden], the sequences' tokens one after another
        position_ids             int64   [3, 1, R]
        logit_indices            int64   [rows wanted]
        deepstack_embeds.{i}     float32 [1, R or 1, hidden]
        sequences                int32   [N, 3]  slot, new tokens, tokens already in the slot
        past_key_values.{l}.key / .value  [slots, kv_heads, max_len, head_dim], of its `kv_dtype`
    Output: logits.
    """

    file: str
    precision: str  # of the weights: "fp32", "fp16", "int8" or "int4"
    block_size: int | None  # None: one scale per output column
    accuracy_level: int | None
    kv_dtype: str = "float32"  # "float32" or "float16"
    execution_provider: str = "cpu"  # ONNX Runtime's name for the device it was made for
    kernels: str = "onnxruntime"  # what computes it: "onnxruntime" or "tandem"
    weight_bytes: int = 0  # of its constants; graphs of the same kernels share them


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """Size in bytes and hex SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything the tiers must agree on about one bundle."""

    format_version: int
    family: str
    model_id: str
    revision: str | None
    text: TextDims
    vision: VisionDims
    special_tokens: SpecialTokens
    generation: Mapping[str, Any]  # generation_config.json's sampling defaults, as they are
    embedding_table: EmbeddingTable
    graphs: tuple[DecoderGraph, ...]  # the portable one first
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry]
    quality: Mapping[str, Any]

    @property
    def graph(self) -> DecoderGraph:
        """The graph that stands for the bundle: the portable one."""
        return self.graphs[0]

    @property
    def deepstack_level_count(self) -> int:
        """DeepStack levels after the embeddings."""
        return len(self.vision.deepstack_visual_indexes)

    def to_json(self) -> str:
        """The manifest's canonical text."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parses `to_json`'s text.

        Raises:
            BundleError: not JSON, another format version, or fields missing or unknown.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{MANIFEST_NAME} is not valid JSON") from error
        if not isinstance(raw, dict) or raw.get("format_version") != FORMAT_VERSION:
            found = raw.get("format_version") if isinstance(raw, dict) else None
            raise BundleError(
                f"{MANIFEST_NAME} has format version {found}, this release reads"
                f" {FORMAT_VERSION}; export the checkpoint again"
            )
        try:
            return cls(**{**raw, **_nested(raw)})
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{MANIFEST_NAME} lacks a field or has an unknown one") from error


def _nested(raw: Mapping[str, Any]) -> dict[str, Any]:
    vision = dict(raw["vision"])
    vision["deepstack_visual_indexes"] = tuple(vision["deepstack_visual_indexes"])
    tokens = dict(raw["special_tokens"])
    tokens["eos"] = tuple(tokens["eos"])
    return {
        "text": TextDims(**raw["text"]),
        "vision": VisionDims(**vision),
        "special_tokens": SpecialTokens(**tokens),
        "embedding_table": EmbeddingTable(**raw["embedding_table"]),
        "graphs": tuple(DecoderGraph(**graph) for graph in raw["graphs"]),
        "files": {name: FileEntry(**entry) for name, entry in raw["files"].items()},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle: where it lies, what it says, and the digest peers compare."""

    path: Path
    manifest: Manifest
    digest: str  # hex SHA-256 of tandem.json's bytes

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Reads the manifest.

        Raises:
            BundleError: the folder or its manifest is missing or unreadable.
        """
        root = Path(path)
        if not root.is_dir():
            raise BundleError(f"no bundle at {root}: not a folder")
        try:
            data = (root / MANIFEST_NAME).read_bytes()
        except OSError as error:
            raise BundleError(f"{root} is not a bundle: it has no {MANIFEST_NAME}") from error
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"{MANIFEST_NAME} is not UTF-8 text") from error
        manifest = Manifest.from_json(text)
        return cls(path=root, manifest=manifest, digest=hashlib.sha256(data).hexdigest())

    def verify_files(self, parts: Iterable[str], *, advance: Advance | None = None) -> None:
        """Compares files with the manifest before a tier loads them.

        Args:
            parts: Top folders to check, for example ("decoder",).
            advance: Hash large files too, calling this with bytes hashed since the last call.

        Raises:
            BundleError: files are missing, or have another size or digest; names every one.
        """
        folders = tuple(f"{part}/" for part in parts)
        faults = [
            fault
            for name, entry in self.manifest.files.items()
            if name.startswith(folders)
            and (fault := self._fault_of(name, entry, advance)) is not None
        ]
        if faults:
            raise BundleError(f"the bundle is damaged: {'; '.join(faults)}")

    def _fault_of(self, name: str, entry: FileEntry, advance: Advance | None) -> str | None:
        file = self.path / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != entry.size:
            return f"{name} has {size} bytes, expected {entry.size}"
        hashed = advance is not None or size <= HASHED_AT_START_BYTES
        try:
            is_intact = not hashed or file_sha256(file, advance) == entry.sha256
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        return None if is_intact else f"{name} does not match its digest"


def file_sha256(file: Path, advance: Advance | None = None) -> str:
    """Hex SHA-256 of a file, read in pieces; `advance` is called with each one's size."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(READ_BYTES):
            digest.update(piece)
            if advance is not None:
                advance(len(piece))
    return digest.hexdigest()
