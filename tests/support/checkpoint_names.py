"""Names of the tiny checkpoints, for tests that must not import torch to list them."""

NAMES = ("tied", "untied", "deep", "odd")
