"""One line of what `tandem doctor` found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, what was found, whether Tandem can run with it."""

    name: str
    found: str
    ok: bool = True
