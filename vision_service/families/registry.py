"""The families this release runs; a new one is one more row."""

from protos.bundle.manifest import BundleError
from vision_service.families.family import VisionFamily
from vision_service.families.qwen3_vl import QWEN3_VL

_FAMILIES = {family.name: family for family in (QWEN3_VL,)}


def family_of(name: str) -> VisionFamily:
    """The family a manifest names.

    Raises:
        BundleError: it is none of this release's.
    """
    if name not in _FAMILIES:
        raise BundleError(
            f"the bundle's family is {name!r}, the vision tier runs {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[name]
