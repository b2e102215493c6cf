"""Which licence an installed distribution declares, and the rows of LICENSES.md.

    python -m tests.support.licences

prints the rows that LICENSES.md should have but for their last column.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

from tests.support.markdown import tables

ROOT = Path(__file__).parents[2]
LICENSES = ROOT / "LICENSES.md"
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-test.lock")

# What distributions without a License-Expression write, as SPDX has it.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """Versions of both locks by canonical name."""
    text = "\n".join(lock.read_text() for lock in LOCKS)
    lines = (re.split("[#;]", line)[0].strip() for line in text.splitlines())
    pins = (line.split("==") for line in lines if line)
    return {canonical(name): version for name, version in pins}


def declared(name: str) -> str:
    """The licence an installed distribution's metadata declare, in their own words.

    License-Expression before the first line of License before the classifiers.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    about = metadata.metadata(name)
    if "License-Expression" in about:
        return about["License-Expression"]
    text = about["License"].strip() if "License" in about else ""
    if text:
        return text.splitlines()[0]
    classifiers = about.get_all("Classifier") or []
    names = [entry.split(" :: ")[-1] for entry in classifiers if entry.startswith("License ::")]
    return "; ".join(names)


def to_spdx(text: str) -> str:
    """The SPDX expression for what a distribution declares; the text itself where it is one."""
    return SPDX.get(text, text)


def rows() -> dict[str, list[str]]:
    """Rows of the locked distributions: name, version, licence, for, why."""
    return {
        canonical(row[0]): row
        for table in tables(LICENSES.read_text())
        if table.header[:3] == ["distribution", "version", "licence"]
        for row in table.rows
    }


def read_by_hand() -> dict[str, tuple[str, str]]:
    """Of distributions whose metadata do not say enough: what they declare, and what it is."""
    return {
        canonical(row[0]): (row[1], row[2])
        for table in tables(LICENSES.read_text())
        if table.header[:3] == ["distribution", "declares", "is"]
        for row in table.rows
    }


def main() -> None:
    """Prints a row for each line of requirements.lock."""
    by_hand = read_by_hand()
    for name, version in locked().items():
        licence = by_hand[name][1] if name in by_hand else to_spdx(declared(name))
        sys.stdout.write(f"| {name} | {version} | {licence} | | |\n")


if __name__ == "__main__":
    main()
