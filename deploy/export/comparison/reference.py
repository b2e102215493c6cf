"""What transformers makes of a prompt and the tokens a bundle answered with.

    python -m deploy.export.comparison.reference CHECKPOINT FOLDER [GRAPH FOLDER]

`tandem verify --checkpoint` runs this in a process of its own. For each FOLDER/question-N.npz
it writes answer-N.npz. A question holds `input_ids` int [S] with placeholders expanded, `tokens`
int [T], and the images `image_0`, ... uint8 [height, width, 3] in prompt order; its answer
`logits` float32 [T, vocab], each row after the prompt and the tokens before it.

The first folder is answered with the checkpoint's weights, the second with those that a quantized
graph implies.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deploy.export import libraries
from deploy.export.checkpoint import preprocessors
from deploy.export.comparison import implied
from deploy.export.families.registry import family_of
from deploy.export.json_keys import read_object


def main(argv: Sequence[str]) -> int:
    """Answers every question of a folder; returns the exit code."""
    checkpoint, folder, *quantized = (Path(argument) for argument in argv)
    family = family_of(read_object(checkpoint, "config.json"))
    model = libraries.model_class(family).from_pretrained(checkpoint, dtype=torch.float32).eval()
    images = next(file for file in family.preprocessors if file.is_image)
    settings = json.loads(preprocessors.read(checkpoint, images))
    _answer(model, settings, folder)
    if quantized:
        graph, folder = quantized
        implied.replace_products(model, graph)
        _answer(model, settings, folder)
    return 0


def _answer(model: Any, settings: Mapping[str, Any], folder: Path) -> None:
    for file in sorted(folder.glob("question-*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            logits = reference_logits(model, settings, dict(arrays))
        np.savez(folder / file.name.replace("question", "answer"), logits=logits)


def reference_logits(
    model: Any, settings: Mapping[str, Any], question: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float32]:
    """Logits float32 [T, vocab] of the real model in float32; see the module's text."""
    tokens = torch.from_numpy(question["tokens"].astype(np.int64))
    prompt = torch.from_numpy(question["input_ids"].astype(np.int64))
    ids = torch.cat([prompt, tokens[:-1]])[None]
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        # 0 for text, 1 for images: what the processor's own output would say.
        "mm_token_type_ids": (ids == model.config.image_token_id).long(),
    }
    names = sorted((name for name in question if name.startswith("image_")), key=_number)
    if names:
        images = [patches(question[name], settings) for name in names]
        inputs["pixel_values"] = torch.cat([values for values, _ in images])
        inputs["image_grid_thw"] = torch.tensor([grid for _, grid in images])
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False, logits_to_keep=len(tokens)).logits[0]
    result: npt.NDArray[np.float32] = logits.numpy()
    return result


def _number(name: str) -> int:
    return int(name.removeprefix("image_"))


def patches(
    image: npt.NDArray[np.uint8], settings: Mapping[str, Any]
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Patches float32 [P, 3 * t * p * p] and grid (1, h, w) of one image.

    Written apart from the vision tier's own preprocessing on purpose: a check that shared its
    code would share its mistakes.

    **Source**: transformers Qwen2VLImageProcessor (torchvision form).
    """
    patch, merge = settings["patch_size"], settings["merge_size"]
    given = image.shape[0], image.shape[1]
    height, width = _resized(*given, factor=patch * merge, areas=_areas(settings))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )[0].float()
    mean = torch.tensor(settings["image_mean"])[:, None, None]
    std = torch.tensor(settings["image_std"])[:, None, None]
    scaled = (resized * (1 / 255) - mean) / std
    rows, columns = height // patch, width // patch
    frames = scaled[None].repeat(settings["temporal_patch_size"], 1, 1, 1)
    cells = frames.reshape(
        -1, 3, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(2, 5, 3, 6, 1, 0, 4, 7)
    return cells.reshape(rows * columns, -1), (1, rows, columns)


def _areas(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Least and most pixels; `size` gives areas under names of edges, the older names win."""
    size = settings.get("size") or {}
    least, most = settings.get("min_pixels"), settings.get("max_pixels")
    return (
        size["shortest_edge"] if least is None else least,
        size["longest_edge"] if most is None else most,
    )


def _resized(height: int, width: int, *, factor: int, areas: tuple[int, int]) -> tuple[int, int]:
    """The size an image is resized to, of an area between the two of `areas`."""
    least, most = areas
    new_height, new_width = (round(side / factor) * factor for side in (height, width))
    if new_height * new_width > most:
        shrink = math.sqrt(height * width / most)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if new_height * new_width < least:
        grow = math.sqrt(least / (height * width))
        return (
            math.ceil(height * grow / factor) * factor,
            math.ceil(width * grow / factor) * factor,
        )
    return new_height, new_width


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
