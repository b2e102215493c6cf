"""Rounds a weight to int8 so that what rounding one input loses, the inputs after it make good.

How far inputs rise and fall together on sample images says how much of an error they can make
good; towers' activations do strongly, so that a tenth of the plain rounding's error is left.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", algorithm 1.
"""

import numpy as np
import numpy.typing as npt
import torch

from kernels import int8_layout

BLOCK = 128  # inputs whose errors are passed on together
# Inputs that make good each other's errors, at most: the work grows with its third power, and
# what wider products would gain is little.
TOGETHER = 1024
# Of the mean variance, added to each input's: images unlike the samples keep what the samples
# say nothing about.
DAMPING = 0.05

FloatArray = npt.NDArray[np.float32]


def rounded(weight: torch.Tensor, inputs: torch.Tensor) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """The int8 values of a weight, and their scales.

    Args:
        weight: float32 [N, K].
        inputs: What it is multiplied with, on sample images, float32 [P, K].

    Returns:
        Values, int8 [N, K], never -128, and scales, float32 [N], of each output.
    """
    nearest, scales = int8_layout.quantize(weight.numpy())
    divided = weight / torch.from_numpy(scales)[:, None]
    made = torch.from_numpy(nearest)
    for start in range(0, weight.shape[1], TOGETHER):
        part = slice(start, start + TOGETHER)
        seen = inputs[:, part]
        covariance = (seen.T @ seen / len(seen)).double()
        damping = DAMPING * float(covariance.diagonal().mean())
        if damping > 0:  # else nothing ever comes in here
            covariance.diagonal().add_(damping)
            made[:, part] = _fed_back(divided[:, part], covariance)
    return made.numpy(), scales


def _fed_back(weight: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Whole numbers [N, K] near to `weight`, the inputs that vary most rounded first."""
    order = torch.argsort(covariance.diagonal(), descending=True, stable=True)
    feedback = _feedback(covariance[order][:, order])
    values = torch.empty_like(weight)
    values[:, order] = _in_order(weight[:, order], feedback)
    return values


def _feedback(covariance: torch.Tensor) -> torch.Tensor:
    """Row k: what an error of input k asks of the inputs after it, float32 [K, K]."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    upper = torch.linalg.cholesky(inverse, upper=True)
    feedback: torch.Tensor = (upper / upper.diagonal()[:, None]).float()
    return feedback


def _in_order(weight: torch.Tensor, feedback: torch.Tensor) -> torch.Tensor:
    """Rounds [N, K] column after column, each taking the errors of those before it."""
    left = weight.T.contiguous()  # an input's weights lie together
    values = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = torch.empty_like(left[start:end])
        for k in range(start, end):
            values[k] = left[k].round().clamp_(-127, 127)
            errors[k - start] = left[k] - values[k]
            left[k + 1 : end].addr_(feedback[k, k + 1 : end], errors[k - start], alpha=-1)
        left[end:].addmm_(feedback[start:end, end:].T, errors, alpha=-1)
    return values.T
