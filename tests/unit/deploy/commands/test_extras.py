"""The libraries of each part, read from what pyproject.toml declares."""

import re
import tomllib
from pathlib import Path

import pytest

from deploy.commands.extras import installed, required

with (Path(__file__).parents[4] / "pyproject.toml").open("rb") as file:
    DECLARED = tomllib.load(file)["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", DECLARED)
def test_every_library_of_an_extra_is_known(extra: str) -> None:
    names = [re.split(r"[\[<>=;]", line)[0] for line in DECLARED[extra]]
    assert names and required(extra) == names


def test_an_unknown_extra_needs_nothing() -> None:
    assert required("nothing") == []


def test_a_missing_library_has_no_version() -> None:
    assert installed("numpy")
    assert installed("no-such-library") is None
