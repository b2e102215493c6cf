"""A bundle's family decides how its tower is built, or that it is not."""

import pytest

from protos.bundle.manifest import BundleError
from vision_service.families.registry import family_of


def test_a_family_is_found_by_the_name_in_the_manifest() -> None:
    assert family_of("qwen3_vl").name == "qwen3_vl"


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(BundleError, match="qwen9_vl"):
        family_of("qwen9_vl")
