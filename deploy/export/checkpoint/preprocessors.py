"""A checkpoint's settings for images and videos, from whichever file transformers takes them.

Published checkpoints have a file for each. transformers 5 saves both within processor_config.json
instead, and lets those win where a checkpoint has both forms.
"""

import json
from pathlib import Path

from deploy.export.errors import ExportError
from deploy.export.families.family import Config, PreprocessorFile
from deploy.export.json_keys import parse_object, positive, read_object, require
from protos.bundle.manifest import BundleError, VisionDims
from protos.media.images import ImageSettings

PROCESSOR_NAME = "processor_config.json"


def read(path: Path, file: PreprocessorFile) -> bytes:
    """The settings of one kind: the file's bytes, or the nested object as a file of its own.

    Raises:
        ExportError: the checkpoint has neither, or the nested form is no JSON object.

    **Source**: transformers 5 ImageProcessingMixin.get_image_processor_dict and
    BaseVideoProcessor.get_video_processor_dict.
    """
    if (path / PROCESSOR_NAME).is_file():
        nested = read_object(path, PROCESSOR_NAME).get(file.nested_key)
        if nested is not None:
            if not isinstance(nested, dict):
                raise ExportError(f"{PROCESSOR_NAME}: {file.nested_key} is not an object")
            return (json.dumps(nested, indent=2, ensure_ascii=False) + "\n").encode()
    if not (path / file.name).is_file():
        raise ExportError(
            f"the checkpoint lacks {file.name}, and {file.nested_key} in {PROCESSOR_NAME}"
        )
    return (path / file.name).read_bytes()


def check(file: PreprocessorFile, data: bytes, vision: VisionDims) -> None:
    """Refuses settings that the services would refuse at start, or that contradict config.json.

    Raises:
        ExportError: naming the key.
    """
    raw = parse_object(file.name, data)
    found = require(raw, file.class_key, file.name, str)
    if found not in file.classes:
        raise ExportError(
            f"{file.name}: {file.class_key} is {found}, supported is {file.classes[0]}"
        )
    if file.is_image:
        _check_images(raw, vision)
    else:
        _check_videos(file.name, raw, vision)


def _check_images(raw: Config, vision: VisionDims) -> None:
    try:
        ImageSettings.from_mapping(raw).check_against(vision)
    except BundleError as error:
        raise ExportError(f"the services could not start: {error}") from error


def _check_videos(name: str, raw: Config, vision: VisionDims) -> None:
    """transformers' video processor obeys `size` alone: min_pixels beside it have no effect."""
    size = require(raw, "size", name, dict)
    least = positive(size, "shortest_edge", f"{name}: size")
    most = positive(size, "longest_edge", f"{name}: size")
    if least > most:
        raise ExportError(f"{name}: size.shortest_edge {least} exceeds longest_edge {most}")
    for key, wanted in (
        ("patch_size", vision.patch_size),
        ("temporal_patch_size", vision.temporal_patch_size),
        ("merge_size", vision.spatial_merge_size),
    ):
        value = positive(raw, key, name)
        if value != wanted:
            raise ExportError(f"{name}: {key} is {value}, vision_config says {wanted}")
    for key in ("image_mean", "image_std"):
        values = require(raw, key, name, list)
        if len(values) != vision.in_channels:
            raise ExportError(f"{name}: {key} has {len(values)} values, expected 3")
