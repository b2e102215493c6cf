"""The checkpoint's own tokenizer, template and image settings, byte for byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.export.checkpoint import config
from deploy.export.errors import ExportError
from protos.bundle.manifest import SpecialTokens, VisionDims

TEMPLATE_NAME = "chat_template.jinja"
REQUIRED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
IMAGE_CLASSES = (
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen3VLImageProcessor",
    "Qwen3VLImageProcessorFast",
)
VIDEO_CLASSES = ("Qwen3VLVideoProcessor",)
TOKEN_NAMES = {
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}


def refuse_remote_code(path: Path) -> None:
    """Refuses a checkpoint of which any settings file points at Python code.

    Raises:
        ExportError: naming the file.
    """
    for file in sorted(path.glob("*.json")):
        if file.name == "tokenizer.json" or file.name.endswith(".index.json"):
            continue
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExportError(f"{file.name} is not valid JSON") from error
        if isinstance(raw, dict) and "auto_map" in raw:
            raise ExportError(
                f"{file.name} has auto_map; checkpoints with code of their own are refused"
            )


def collect(
    path: Path, *, vision: VisionDims, tokens: SpecialTokens, vocab_size: int
) -> dict[str, bytes]:
    """Reads the files of the bundle's processor folder.

    Returns:
        File name in the bundle -> bytes as the checkpoint has them.

    Raises:
        ExportError: a file or key is missing, or contradicts config.json.
    """
    files = {}
    for name in REQUIRED:
        if not (path / name).is_file():
            raise ExportError(f"the checkpoint lacks {name}")
        files[name] = (path / name).read_bytes()
    files[TEMPLATE_NAME] = _chat_template(path, files["tokenizer_config.json"])
    _check_tokenizer(files["tokenizer.json"], tokens, vocab_size)
    for name, kind, classes in (
        ("preprocessor_config.json", "image_processor_type", IMAGE_CLASSES),
        ("video_preprocessor_config.json", "video_processor_type", VIDEO_CLASSES),
    ):
        _check_preprocessor(name, json.loads(files[name]), vision, kind, classes)
    return files


def _chat_template(path: Path, tokenizer_config: bytes) -> bytes:
    """The template from whichever of three places transformers would take it."""
    if (path / TEMPLATE_NAME).is_file():
        return (path / TEMPLATE_NAME).read_bytes()
    if (path / "chat_template.json").is_file():
        raw = json.loads((path / "chat_template.json").read_text(encoding="utf-8"))
    else:
        raw = json.loads(tokenizer_config)
    template = raw.get("chat_template") if isinstance(raw, dict) else None
    if not isinstance(template, str):
        raise ExportError(
            f"the checkpoint has no chat template: neither {TEMPLATE_NAME}, nor chat_template.json,"
            " nor chat_template in tokenizer_config.json"
        )
    return template.encode()


def _check_tokenizer(data: bytes, tokens: SpecialTokens, vocab_size: int) -> None:
    raw: Any = _parsed("tokenizer.json", data)
    try:
        added = {token["content"]: token["id"] for token in raw["added_tokens"]}
        ids = [*raw["model"]["vocab"].values(), *added.values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportError("tokenizer.json lacks model.vocab or added_tokens") from error
    for field, name in TOKEN_NAMES.items():
        wanted = getattr(tokens, field)
        if added.get(name) != wanted:
            raise ExportError(
                f"tokenizer.json gives {name} the id {added.get(name)}, config.json says {wanted}"
            )
    if max(ids) >= vocab_size:
        raise ExportError(f"tokenizer.json has id {max(ids)}, text_config.vocab_size {vocab_size}")
    if max(tokens.eos) >= vocab_size:
        raise ExportError(f"eos_token_id {max(tokens.eos)} is beyond vocab_size {vocab_size}")


def _check_preprocessor(
    name: str, raw: Any, vision: VisionDims, kind: str, classes: tuple[str, ...]
) -> None:
    if not isinstance(raw, dict):
        raise ExportError(f"{name} is not a JSON object")
    found = config.require(raw, kind, name, str)
    if found not in classes:
        raise ExportError(f"{name}: {kind} is {found}, supported is {classes[0]}")
    size = config.require(raw, "size", name, dict)
    least = config.positive(size, "shortest_edge", f"{name}: size")
    most = config.positive(size, "longest_edge", f"{name}: size")
    if least > most:
        raise ExportError(f"{name}: size.shortest_edge {least} exceeds longest_edge {most}")
    for key, wanted in (
        ("patch_size", vision.patch_size),
        ("temporal_patch_size", vision.temporal_patch_size),
        ("merge_size", vision.spatial_merge_size),
    ):
        value = config.positive(raw, key, name)
        if value != wanted:
            raise ExportError(f"{name}: {key} is {value}, vision_config says {wanted}")
    for key in ("image_mean", "image_std"):
        values = config.require(raw, key, name, list)
        if len(values) != vision.in_channels:
            raise ExportError(f"{name}: {key} has {len(values)} values, expected 3")
    for key in ("min_pixels", "max_pixels"):
        if raw.get(key) is not None:
            raise ExportError(f"{name}: {key} is an older spelling of size; state size only")


def _parsed(name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ExportError(f"{name} is not valid JSON") from error


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files collected before."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
