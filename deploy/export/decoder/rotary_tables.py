"""The rotary tables that the builder computes with torch, checked before they are written.

torch's vectorized cosine was seen, once, to return half a table with errors of 1.5e-4 instead of
1e-7: the half that one of its two threads computes. Sines of the same angles, computed next, were
right. It could not be provoked again (1,500 processes, first calls on idle cores). A bundle with
such a table answers, with logits that are off by up to 0.03.
"""

from collections.abc import Callable

import torch

from deploy.export.errors import ExportError

_ATTEMPTS = 3
# Each is rounded to float32, so the sum of squares of right ones is off by 2e-7 at most.
_MOST_ERROR = 1e-6

Tables = tuple[torch.Tensor, torch.Tensor]


def checked(make: Callable[[], Tables], scale: float) -> Tables:
    """Cosines and sines that belong together, computed again where they do not.

    Args:
        make: Computes both, float32 [positions, dims].
        scale: What they are multiplied with.

    Raises:
        ExportError: they never do.
    """
    for _ in range(_ATTEMPTS):
        made = make()
        cosines, sines = made
        ones = (cosines.double() ** 2 + sines.double() ** 2) / scale**2
        if bool(((ones - 1).abs() < _MOST_ERROR).all()):
            return made
    raise ExportError("the rotary tables cannot be computed: cosines and sines disagree")
