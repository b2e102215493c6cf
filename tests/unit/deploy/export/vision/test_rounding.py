"""Weights rounded by what their inputs are like."""

import numpy as np
import pytest
import torch

from deploy.export.vision import rounding
from kernels import int8_layout

OUTPUTS, INPUTS = 24, 96


def weight() -> torch.Tensor:
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1))


def alike_inputs(rows: int = 400) -> torch.Tensor:
    """Inputs that rise and fall together, as a tower's do."""
    generator = torch.Generator().manual_seed(2)
    shared = torch.randn(rows, 12, generator=generator) @ torch.randn(
        12, INPUTS, generator=generator
    )
    return shared + 0.1 * torch.randn(rows, INPUTS, generator=generator)


def error(made: tuple[np.ndarray, np.ndarray], inputs: torch.Tensor) -> float:
    values, scales = (torch.from_numpy(part) for part in made)
    return float(((inputs @ (values * scales[:, None] - weight()).T) ** 2).mean())


@pytest.mark.parametrize("together", [rounding.TOGETHER, 40])
def test_errors_make_each_other_good_on_images_that_were_not_seen(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "TOGETHER", together)
    inputs = alike_inputs()
    made = rounding.rounded(weight(), inputs[:200])
    plain = int8_layout.quantize(weight().numpy())
    assert error(made, inputs[200:]) < error(plain, inputs[200:]) / 4
    np.testing.assert_array_equal(made[1], plain[1])
    assert made[0].dtype == np.int8 and np.abs(made[0]).max() <= 127


def test_inputs_that_are_never_there_round_to_the_nearest() -> None:
    made = rounding.rounded(weight(), torch.zeros(10, INPUTS))
    np.testing.assert_array_equal(made[0], int8_layout.quantize(weight().numpy())[0])
