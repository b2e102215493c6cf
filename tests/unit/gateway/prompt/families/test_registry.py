"""A bundle's family decides what the prompt builder does, or that there is none."""

from pathlib import Path

import pytest

from gateway.prompt.builder import PromptBuilder
from gateway.prompt.families.qwen3_vl import QWEN3_VL
from gateway.prompt.families.registry import FAMILIES, family_named
from protos.bundle.manifest import BundleError, SpecialTokens
from tests.support.prompts import processor_bundle, processor_files


def test_families_are_found_by_the_manifests_name() -> None:
    assert family_named("qwen3_vl") is QWEN3_VL


def test_a_family_names_only_tokens_the_manifest_has() -> None:
    for family in FAMILIES.values():
        assert set(family.template_tokens) <= set(SpecialTokens.__slots__)


def test_a_bundle_of_an_unknown_family_is_refused_by_its_name(tmp_path: Path) -> None:
    files = processor_files(tmp_path / "files")
    changes = {"family": "qwen9_vl"}
    bundle = processor_bundle(files, tmp_path / "bundle", manifest_changes=changes)
    with pytest.raises(BundleError, match=r"'qwen9_vl', this gateway serves qwen3_vl"):
        PromptBuilder(bundle)
