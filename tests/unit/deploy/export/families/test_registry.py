"""A checkpoint is of a family that is named, or refused with the list of those."""

from dataclasses import replace

import pytest

from deploy.export.errors import ExportError
from deploy.export.families import qwen3_vl, registry
from deploy.export.families.registry import FAMILIES, family_of, instead_of

CONFIG = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}


def test_a_known_model_type_is_its_family() -> None:
    assert family_of(CONFIG) is qwen3_vl.FAMILY


def test_an_unknown_model_type_is_refused_with_the_list_of_those_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(qwen3_vl.FAMILY, name="another_vl")
    monkeypatch.setattr(registry, "FAMILIES", {"qwen3_vl": qwen3_vl.FAMILY, "another_vl": other})
    with pytest.raises(ExportError, match="model_type is gemma3, supported: another_vl, qwen3_vl"):
        family_of({**CONFIG, "model_type": "gemma3"})


def test_another_class_of_a_known_family_is_refused() -> None:
    with pytest.raises(ExportError, match="Qwen3VLModel"):
        family_of({**CONFIG, "architectures": ["Qwen3VLModel"]})


def test_a_family_is_listed_under_the_name_the_manifest_gives_it() -> None:
    assert {name: family.name for name, family in FAMILIES.items()} == {"qwen3_vl": "qwen3_vl"}


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("Qwen/Qwen3-VL-2B-Instruct-FP8", "Qwen/Qwen3-VL-2B-Instruct"),
        ("someone/qwen3-vl-8b-thinking-AWQ-4bit", "Qwen/Qwen3-VL-8B-Thinking"),
        ("/models/mine", "for example Qwen/Qwen3-VL-2B-Instruct"),
    ],
)
def test_the_published_checkpoint_behind_a_refused_one_is_named(source: str, instead: str) -> None:
    assert instead_of(source, qwen3_vl.FAMILY) == instead
