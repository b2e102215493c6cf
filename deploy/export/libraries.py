"""The heavy libraries of the exporter, imported on purpose and only when work begins."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import warnings
from typing import Any

from deploy.export.families.family import Family

PACKAGES = ("onnxruntime", "onnxruntime-genai", "torch", "transformers")


def versions() -> dict[str, str]:
    """Versions of the libraries that shape a bundle, for its manifest."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    try:
        found["tandem"] = importlib.metadata.version("tandem-vlm")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        found["tandem"] = "source"
    return found


def builder_class(family: Family) -> Any:
    """onnxruntime-genai's builder of the family's text graph.

    It is imported inside a function because it costs seconds, prints to stdout, puts its own
    folder on sys.path, and imports all of transformers.
    """
    without_broken_torchvision()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import onnxruntime_genai.models  # noqa: F401  (makes the builder's own imports resolve)

        return getattr(importlib.import_module(family.builder_module), family.builder_class)


def model_class(family: Family) -> Any:
    """transformers' class of the whole model."""
    without_broken_torchvision()
    import transformers

    return getattr(transformers, family.model_class)


def without_broken_torchvision() -> None:
    """Hides a torchvision that does not import beside this torch.

    transformers imports torchvision whenever it is installed, and fails with it; the exporter
    needs none. A None in sys.modules makes Python report it as not installed.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]
