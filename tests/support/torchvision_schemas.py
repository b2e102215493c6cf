"""Lets torchvision import beside a CPU-only torch; only the tests' oracle needs it.

torchvision's compiled operators do not load there, and its import then fails because it registers
shape functions for operators without a schema. Declaring the schemas first is enough: the
processors of transformers use none of these operators. `install()` must run before the first
import of transformers in a process.
"""

import functools

import torch

OPERATORS = (
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


@functools.cache
def install() -> torch.library.Library:
    """Declares torchvision's operators; the cache keeps it alive."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")  # type: ignore[no-untyped-call]
    return library
