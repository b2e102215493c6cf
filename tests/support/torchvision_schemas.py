"""Lets torchvision import beside a CPU-only torch; only the tests' oracle needs it.

`install()` must run before the first import of transformers in a process.
"""

from tests.demo_model.oracle import make_transformers_importable


def install() -> None:
    """Declares torchvision's operators where they do not load by themselves."""
    make_transformers_importable()
