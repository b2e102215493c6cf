"""The checkpoint's own tokenizer, template, and image and video settings, unchanged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.export.checkpoint import preprocessors
from deploy.export.errors import ExportError
from deploy.export.families.family import Family
from deploy.export.json_keys import parse_object, read_object
from protos.bundle.manifest import SpecialTokens, VisionDims

TEMPLATE_NAME = "chat_template.jinja"
# The files of which transformers would follow a pointer to code.
SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
# Of every family; its own preprocessors' settings come to them.
REQUIRED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def refuse_remote_code(path: Path) -> None:
    """Refuses a checkpoint of which any settings file points at Python code.

    Other JSON files beside them are nobody's business: nothing here opens them.

    Raises:
        ExportError: naming the file.
    """
    for name in SETTINGS:
        if not (path / name).is_file():
            continue
        raw = read_object(path, name)
        nested = [value for value in raw.values() if isinstance(value, dict)]
        if any("auto_map" in value for value in (raw, *nested)):
            raise ExportError(
                f"{name} has auto_map; checkpoints with code of their own are refused"
            )


def collect(
    path: Path, family: Family, *, vision: VisionDims, tokens: SpecialTokens, vocab_size: int
) -> dict[str, bytes]:
    """Reads the files of the bundle's processor folder.

    Returns:
        File name in the bundle -> bytes as the checkpoint has them; what it has within another
        file (template, preprocessors) is a file of its own here.

    Raises:
        ExportError: a file or key is missing, or contradicts config.json.
    """
    files = {}
    for name in REQUIRED:
        if not (path / name).is_file():
            raise ExportError(f"the checkpoint lacks {name}")
        files[name] = (path / name).read_bytes()
    files[TEMPLATE_NAME] = _chat_template(path, files["tokenizer_config.json"])
    _check_tokenizer(files["tokenizer.json"], family.placeholders, tokens, vocab_size)
    for file in family.preprocessors:
        files[file.name] = preprocessors.read(path, file)
        preprocessors.check(file, files[file.name], vision)
    return files


def _chat_template(path: Path, tokenizer_config: bytes) -> bytes:
    """The template from whichever of three places transformers would take it."""
    if (path / TEMPLATE_NAME).is_file():
        return (path / TEMPLATE_NAME).read_bytes()
    if (path / "chat_template.json").is_file():
        template = read_object(path, "chat_template.json").get("chat_template")
    else:
        template = parse_object("tokenizer_config.json", tokenizer_config).get("chat_template")
    if isinstance(template, list):
        template = _named_template(template)
    if not isinstance(template, str):
        raise ExportError(
            f"the checkpoint has no chat template: neither {TEMPLATE_NAME}, nor chat_template.json,"
            " nor chat_template in tokenizer_config.json"
        )
    return template.encode()


def _named_template(templates: list[Any]) -> Any:
    """The only template of a list of named ones.

    transformers takes "default", but "tool_use" where a request has tools: two templates of one
    model are more than a bundle holds.
    """
    named = [entry for entry in templates if isinstance(entry, dict)]
    names = [entry.get("name") for entry in named]
    if len(named) != len(templates) or names != ["default"]:
        raise ExportError(
            f"chat_template is a list of the templates {names}, expected one named default;"
            f" put the one to serve into {TEMPLATE_NAME}"
        )
    return named[0].get("template")


def _check_tokenizer(
    data: bytes, placeholders: Mapping[str, str], tokens: SpecialTokens, vocab_size: int
) -> None:
    raw = parse_object("tokenizer.json", data)
    try:
        added = {token["content"]: token["id"] for token in raw["added_tokens"]}
        ids = [*raw["model"]["vocab"].values(), *added.values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportError("tokenizer.json lacks model.vocab or added_tokens") from error
    for field, name in placeholders.items():
        wanted = getattr(tokens, field)
        if added.get(name) != wanted:
            raise ExportError(
                f"tokenizer.json gives {name} the id {added.get(name)}, config.json says {wanted}"
            )
    if max(ids) >= vocab_size:
        raise ExportError(f"tokenizer.json has id {max(ids)}, text_config.vocab_size {vocab_size}")
    if max(tokens.eos) >= vocab_size:
        raise ExportError(f"eos_token_id {max(tokens.eos)} is beyond vocab_size {vocab_size}")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files collected before."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
