"""The families that can be exported. A new one is a file beside this one and a row here."""

from collections.abc import Mapping

from deploy.export.errors import ExportError
from deploy.export.families import qwen3_vl
from deploy.export.families.family import Config, Family
from deploy.export.json_keys import require

FAMILIES: Mapping[str, Family] = {family.name: family for family in (qwen3_vl.FAMILY,)}


def family_of(config: Config, source: str = "") -> Family:
    """The family that config.json names.

    Args:
        config: config.json.
        source: Folder or hub id of the checkpoint, for a hint at what to take instead.

    Raises:
        ExportError: there is no such family, or the model class is not the family's.
    """
    name = require(config, "model_type", "config.json", str)
    if name not in FAMILIES:
        instead = instead_of(source, *FAMILIES.values())
        raise ExportError(
            f"model_type is {name}, supported: {', '.join(sorted(FAMILIES))}; take {instead}"
        )
    family = FAMILIES[name]
    architectures = require(config, "architectures", "config.json", list)
    if architectures != [family.model_class]:
        raise ExportError(
            f"architectures is {architectures}, expected [{family.model_class!r}];"
            f" take {instead_of(source, family)}"
        )
    return family


def instead_of(source: str, *families: Family) -> str:
    """Which published checkpoint to take instead of a refused one.

    Args:
        source: Folder or hub id of the refused one.
        families: Where to look.

    Returns:
        The one whose name the refused one's contains, as "Qwen/Qwen3-VL-2B-Instruct" for
        "someone/Qwen3-VL-2B-Instruct-FP8"; otherwise "for example" and the first.
    """
    published = [hub_id for family in families for hub_id in family.published]
    for hub_id in published:
        if hub_id.partition("/")[2].lower() in source.lower():
            return hub_id
    return f"for example {published[0]}"
