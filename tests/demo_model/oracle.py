"""Lets transformers be imported next to a torchvision whose compiled operators do not load.

transformers' Qwen3-VL processor needs torchvision to be importable, but none of its operators.
Beside a CPU torch of another origin they do not load, and torchvision then fails to import for want
of their declarations; so these are made here first.
"""

import importlib.util
from pathlib import Path

import torch

_LIBRARIES: list[torch.library.Library] = []  # declarations live as long as their library
_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
)


def make_transformers_importable() -> None:
    """Declares torchvision's operators where they do not load; call before importing transformers.

    Where they load, a declaration would clash with theirs, so loading is tried first.
    """
    found = importlib.util.find_spec("torchvision")
    if _LIBRARIES or found is None or found.origin is None or _load(Path(found.origin).parent):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)


def _load(folder: Path) -> bool:
    """Loads the compiled operators as torchvision itself will; False beside another torch."""
    try:
        torch.ops.load_library(folder / "_C.so")  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
