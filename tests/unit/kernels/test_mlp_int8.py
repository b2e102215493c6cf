"""`MlpInt8` is a block's MLP, with every instruction set the processor has."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import int8_layout, layout
from tests.unit.kernels.test_tower_operators import Product, random, session
from tests.unit.kernels.test_tower_operators import instruction_set as instruction_set

Floats = npt.NDArray[np.float32]
EPSILON = 1e-6
PARTS = ("values", "scales", "sums", "biases")
SHAPES = [(256, 1024), (100, 544), (36, 96), (64, 17), (33, 1100)]  # K, N


class Mlp:
    """Weights [N, K] and [K, N] and their operator, and the same arithmetic in float64."""

    def __init__(
        self, inputs: int, hidden: int, *, gelu: str | None = "tanh", **attributes: int
    ) -> None:
        self.gelu = gelu
        self.weights = [random(hidden, inputs), random(inputs, hidden + 1)[:, 1:]]
        self.norm = 1 + random(2, inputs, scale=0.2)
        self.products = [Product(self.weights[0], gelu=gelu), Product(self.weights[1])]
        node = helper.make_node(
            int8_layout.MLP,
            ["x", *(f"{part}{place}" for place in (1, 2) for part in PARTS), "norm"],
            ["out"],
            domain=layout.DOMAIN,
            **{
                "K": inputs,
                "N": hidden,
                "activation": int8_layout.ACTIVATIONS[gelu],
                "epsilon": EPSILON,
                **attributes,
            },
        )
        constants = [
            numpy_helper.from_array(getattr(packed, part), f"{part}{place + 1}")
            for place, packed in enumerate(self.packed())
            for part in PARTS
        ]
        self.session = session(node, dict.fromkeys(("x", "norm"), TensorProto.FLOAT), constants)

    def packed(self) -> list[int8_layout.Int8Weight]:
        return [int8_layout.pack(one.values, one.scales, one.bias) for one in self.products]

    def run(self, x: Floats) -> Floats:
        (made,) = self.session.run(None, {"x": x, "norm": self.norm})
        return np.asarray(made)

    def in_two(self, x: Floats) -> Floats:
        """The same by `MatMulInt8`."""
        hidden = self.products[0].run(x, norm=self.norm)
        return self.products[1].run(hidden, residual=x)

    def hidden(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        wide = x.astype(np.float64)
        centred = wide - wide.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        made = centred / np.sqrt(variance + EPSILON) * self.norm[0] + self.norm[1]
        made = made @ self._weight(0).T + self.products[0].bias
        if self.gelu == "tanh":
            inner = math.sqrt(2 / math.pi) * (made + 0.044715 * made**3)
            return np.asarray(0.5 * made * (1 + np.tanh(inner)))
        return np.asarray(0.5 * made * (1 + np.vectorize(math.erf)(made / math.sqrt(2))))

    def expected(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        made = self.hidden(x) @ self._weight(1).T + self.products[1].bias
        return np.asarray(made + x, np.float64)

    def error(self, x: Floats, made: Floats) -> npt.NDArray[np.float64]:
        """Of each row, as a share of what the MLP adds to it."""
        wanted = self.expected(x)
        added = np.sqrt(((wanted - x) ** 2).mean(axis=1))
        return np.asarray(np.sqrt(((made - wanted) ** 2).mean(axis=1)) / added)

    def _weight(self, place: int) -> npt.NDArray[np.float64]:
        one = self.products[place]
        return np.asarray(one.values * one.scales[:, None].astype(np.float64))


# Rows around tiles, parts of them, and those that share a working memory.
@pytest.mark.parametrize("rows", [1, 7, 33, 64, 281, 600])
@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_only_rounding_to_bytes_is_lost(rows: int, inputs: int, hidden: int) -> None:
    mlp = Mlp(inputs, hidden)
    x = random(rows, inputs, scale=3)
    error = mlp.error(x, mlp.run(x))
    assert np.median(error) < 0.015 and error.max() < 0.03


@pytest.mark.parametrize(("inputs", "hidden"), SHAPES)
def test_as_little_is_lost_as_by_two_products(inputs: int, hidden: int) -> None:
    mlp = Mlp(inputs, hidden)
    x = random(300, inputs, scale=3)
    fused, apart = mlp.error(x, mlp.run(x)), mlp.error(x, mlp.in_two(x))
    assert np.sqrt((fused**2).mean()) < 1.02 * np.sqrt((apart**2).mean())


def test_without_tiles_it_is_two_products(instruction_set: str) -> None:
    if instruction_set == "amx":
        pytest.skip("with tiles hidden numbers have other scales")
    mlp = Mlp(100, 544)
    x = random(1100, 100)  # more than are computed at once
    np.testing.assert_array_equal(mlp.run(x), mlp.in_two(x))


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_activations(gelu: str) -> None:
    mlp = Mlp(64, 600, gelu=gelu)
    x = random(70, 64)
    assert mlp.error(x, mlp.run(x)).max() < 0.03


def test_large_and_small_rows_are_as_exact_as_others() -> None:
    mlp = Mlp(128, 600)
    mlp.norm[0] = np.geomspace(1e-2, 1e3, 128)  # hidden numbers of thousands beside small ones
    x = random(70, 128) * np.geomspace(1e-2, 1e6, 70, dtype=np.float32)[:, None]
    added = mlp.run(x).astype(np.float64) - x
    wanted = mlp.expected(x) - x
    error = np.abs(added - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
    assert error[:60].max() < 0.03  # of the last ones float32 keeps little beside the residual


def test_rows_of_no_number_leave_the_others_alone() -> None:
    mlp = Mlp(100, 544)
    x = random(70, 100)
    clean = mlp.run(x)
    bad = x.copy()
    bad[3, 7], bad[40, 9], bad[41, 0] = np.nan, np.inf, -np.inf
    made = mlp.run(bad)
    assert np.isnan(made[[3, 40, 41]]).all()
    made[[3, 40, 41]] = clean[[3, 40, 41]]
    np.testing.assert_array_equal(made, clean)


def test_a_row_does_not_depend_on_what_is_beside_it() -> None:
    mlp = Mlp(100, 544)
    x = random(300, 100)
    together = mlp.run(x)
    for row in (0, 31, 32, 255, 299):
        np.testing.assert_array_equal(together[row : row + 1], mlp.run(x[row : row + 1]))


def test_rows_of_zero_are_the_biases() -> None:
    mlp = Mlp(64, 96)
    x = np.zeros((5, 64), np.float32)
    assert mlp.error(x, mlp.run(x)).max() < 0.03


def test_no_rows() -> None:
    assert Mlp(64, 96).run(np.zeros((0, 64), np.float32)).shape == (0, 64)


def test_shapes_that_do_not_fit_are_refused() -> None:
    mlp = Mlp(64, 96)
    with pytest.raises(Exception, match="MlpInt8"):
        mlp.run(random(2, 65))
    mlp.norm = random(2, 63)
    with pytest.raises(Exception, match="MlpInt8"):
        mlp.run(random(2, 64))


def test_attributes_out_of_range_are_refused() -> None:
    with pytest.raises(Exception, match="MlpInt8"):
        Mlp(64, 96, gelu=None)
    with pytest.raises(Exception, match="MlpInt8"):
        Mlp(64, 96, N=int8_layout.MOST_INPUTS + 1)
