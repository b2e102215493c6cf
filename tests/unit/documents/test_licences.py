"""LICENSES.md names every locked distribution with the licence that it declares.

The distributions are looked up where they are installed: a new line of a lock, or a
release under another licence, fails here until somebody has looked.
"""

import hashlib
import re
import tomllib

import pytest

from tests.support.licences import (
    ROOT,
    canonical,
    declared,
    locked,
    read_by_hand,
    rows,
    to_spdx,
)

# SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt, which many wheels ship unchanged.
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_every_locked_distribution_has_one_row_with_its_version() -> None:
    assert {name: row[1] for name, row in rows().items()} == locked()


@pytest.mark.parametrize("name", sorted(locked()))
def test_the_row_has_the_licence_that_the_distribution_declares(name: str) -> None:
    said = declared(name)
    by_hand = read_by_hand().get(name)
    if by_hand is not None:
        assert by_hand[0] == said, "it declares something else now: read its licence again"
    expected = to_spdx(said) if by_hand is None else by_hand[1]
    assert rows()[name][2] == expected


def test_only_locked_distributions_are_read_by_hand() -> None:
    assert set(read_by_hand()) <= set(locked())


@pytest.mark.parametrize("name", sorted(rows()))
def test_the_row_says_what_the_distribution_is_there_for(name: str) -> None:
    assert all(rows()[name])


def test_nothing_is_built_with_what_no_lock_names() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        build = tomllib.load(file)["build-system"]["requires"]
    assert {canonical(re.split(r"[=<>;]", name)[0]) for name in build} <= set(locked())


def test_the_licence_is_the_unchanged_text_that_the_package_declares() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["license"] == "Apache-2.0"
    assert project["license-files"] == ["LICENSE"]
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
