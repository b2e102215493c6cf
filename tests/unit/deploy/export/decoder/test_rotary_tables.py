"""Rotary tables are written only if their cosines and sines belong together."""

from collections.abc import Callable

import pytest
import torch

from deploy.export.decoder.rotary_tables import Tables, checked
from deploy.export.errors import ExportError

ANGLES = torch.outer(torch.arange(4096.0), 10000.0 ** -torch.linspace(0, 1, 16))


def right(scale: float = 1.0) -> Tables:
    angles = ANGLES.double()
    return (angles.cos() * scale).float(), (angles.sin() * scale).float()


def coarse() -> Tables:
    """As it was seen: the first half of the cosines, off by up to 1.5e-4."""
    cosines, sines = right()
    cosines[1:2048] += 1.5e-4 * torch.sin(17 * ANGLES[1:2048])
    return cosines, sines


def one_after_another(*tables: Tables) -> Callable[[], Tables]:
    left = list(tables)
    return lambda: left.pop(0)


@pytest.mark.parametrize("scale", [1.0, 1.2079441])
def test_right_tables_are_taken_as_they_are(scale: float) -> None:
    wanted = right(scale)
    assert checked(one_after_another(wanted), scale) is wanted


def test_coarse_tables_are_computed_again() -> None:
    wanted = right()
    assert checked(one_after_another(coarse(), coarse(), wanted), 1.0) is wanted


@pytest.mark.parametrize("at", [0, 1])
def test_one_wrong_value_is_enough(at: int) -> None:
    tables = right()
    tables[at][77, 3] += 1e-4
    with pytest.raises(ExportError, match="rotary"):
        checked(lambda: tables, 1.0)


def test_values_that_are_no_numbers_are_wrong() -> None:
    tables = right()
    tables[0][5, 5] = float("nan")
    with pytest.raises(ExportError):
        checked(lambda: tables, 1.0)
