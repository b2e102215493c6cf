"""The families this gateway serves."""

from collections.abc import Mapping

from gateway.prompt.families.family import PromptFamily
from gateway.prompt.families.qwen3_vl import QWEN3_VL
from protos.bundle.manifest import BundleError

FAMILIES: Mapping[str, PromptFamily] = {family.name: family for family in (QWEN3_VL,)}


def family_named(name: str) -> PromptFamily:
    """The family a manifest names.

    Raises:
        BundleError: none of that name is served.
    """
    if name not in FAMILIES:
        raise BundleError(
            f"the bundle holds a model of the family {name!r}, this gateway serves"
            f" {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]
