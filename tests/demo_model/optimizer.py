"""Optimisers and the learning-rate schedule of both lessons."""

from collections.abc import Mapping

import torch
from torch import nn

WARM_UP_STEPS = 60
MATRIX_FACTOR = 2.5  # Muon's rate over AdamW's


class Optimizers:
    """Muon for the matrices inside blocks, AdamW for everything else, one schedule for both."""

    def __init__(self, modules: Mapping[str, nn.Module], rate: float) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module_name, module in modules.items():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    matrix = module_name != "heads" and is_inner_matrix(name, parameter)
                    (matrices if matrix else others).append(parameter)
        self.full_rates = (rate * MATRIX_FACTOR, rate)
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
        ]

    def step(self, share: float) -> None:
        """One update at the given share of the full rate; clears the gradients."""
        for part, full_rate in zip(self.parts, self.full_rates, strict=True):
            for group in part.param_groups:
                group["lr"] = full_rate * share
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, object]]:
        """What a resumed run needs."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        """Continues where `state_dict` was taken."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix of a block, a layer or a merger."""
    return parameter.ndim == 2 and any(part in name for part in ("layers", "block", "merger"))


def rate_share(step: int, steps: int, decay_steps: int) -> float:
    """Share of the full learning rate: a short rise, a plateau, a fall to zero at the end."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    fall = min(1.0, (steps - step) / decay_steps) if decay_steps else 1.0
    return rise * fall
