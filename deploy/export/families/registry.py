"""The families that can be exported. A new one is a file beside this one and a row here."""

from collections.abc import Mapping

from deploy.export.errors import ExportError
from deploy.export.families import qwen3_vl
from deploy.export.families.family import Config, Family
from deploy.export.json_keys import require

FAMILIES: Mapping[str, Family] = {family.name: family for family in (qwen3_vl.FAMILY,)}


def family_of(config: Config) -> Family:
    """The family that config.json names.

    Raises:
        ExportError: there is no such family, or the model class is not the family's.
    """
    name = require(config, "model_type", "config.json", str)
    if name not in FAMILIES:
        raise ExportError(f"model_type is {name}, supported: {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[name]
    architectures = require(config, "architectures", "config.json", list)
    if architectures != [family.model_class]:
        raise ExportError(f"architectures is {architectures}, expected [{family.model_class!r}]")
    return family
