"""Which libraries each part of Tandem needs, as its own package says."""

import re
from importlib import metadata

PACKAGE = "tandem-vlm"


def required(extra: str) -> list[str]:
    """Names of the distributions that an extra such as "vision" adds."""
    wanted = re.compile(rf"""([\w.-]+).*;\s*extra == ['"]{extra}['"]""")
    found = (wanted.match(requirement) for requirement in metadata.requires(PACKAGE) or ())
    return [match[1] for match in found if match]


def installed(name: str) -> str | None:
    """The version of a distribution; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
