"""Lets transformers be imported next to a torchvision whose compiled operators do not load.

transformers' Qwen3-VL processor needs torchvision to be importable, but none of its operators.
The CPU build of torch cannot load them, so they are declared here before the import.
"""

import importlib.util

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
    """Declares torchvision's operators if it is installed; call before importing transformers."""
    if _LIBRARIES or importlib.util.find_spec("torchvision") is None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor input) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
