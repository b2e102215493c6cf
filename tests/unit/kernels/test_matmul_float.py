"""`MatMulFloat` is a float32 product, with every instruction set the processor has."""

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import float_layout, int8_layout, layout
from kernels.build import SOURCES
from tests.unit.kernels.test_tower_operators import instruction_set as instruction_set
from tests.unit.kernels.test_tower_operators import random, session

Floats = npt.NDArray[np.float32]
EPSILON = 1e-6


class Product:
    """A weight [N, K] and its operator, and the same arithmetic in float64."""

    def __init__(self, weight: Floats, *, gelu: str | None = None, fast: bool = False) -> None:
        self.weight, self.gelu = weight, gelu
        outputs, inputs = weight.shape
        self.bias = random(outputs)
        packed = float_layout.pack(weight, self.bias)
        node = helper.make_node(
            float_layout.MATMUL,
            ["x", "values", "biases", "residual", "norm"],
            ["out"],
            domain=layout.DOMAIN,
            K=inputs,
            N=outputs,
            activation=int8_layout.ACTIVATIONS[gelu],
            epsilon=EPSILON,
            **({"fast": 1} if fast else {}),  # older graphs have no such attribute
        )
        self.session = session(
            node,
            dict.fromkeys(("x", "residual", "norm"), TensorProto.FLOAT),
            [
                numpy_helper.from_array(packed.values, "values"),
                numpy_helper.from_array(packed.biases, "biases"),
            ],
        )

    def run(self, x: Floats, residual: Floats | None = None, norm: Floats | None = None) -> Floats:
        nothing = np.zeros(0, np.float32)
        feeds = {
            "x": x,
            "residual": nothing if residual is None else residual,
            "norm": nothing if norm is None else norm,
        }
        (made,) = self.session.run(None, feeds)
        return np.asarray(made)

    def expected(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        made = x.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        if self.gelu == "tanh":
            inner = math.sqrt(2 / math.pi) * (made + 0.044715 * made**3)
            made = 0.5 * made * (1 + np.tanh(inner))
        elif self.gelu == "none":
            made = 0.5 * made * (1 + np.vectorize(math.erf)(made / math.sqrt(2)))
        return np.asarray(made, np.float64)

    def error(self, x: Floats, made: npt.NDArray[Any], wanted: npt.NDArray[np.float64]) -> float:
        """The largest error, in units of the lengths of what is multiplied."""
        lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(self.weight, axis=1)
        return float((np.abs(made - wanted) / (lengths + np.abs(wanted))).max())


# Rows around tiles and groups of them, of every instruction set.
@pytest.mark.parametrize("rows", [1, 14, 33, 281, 529])
@pytest.mark.parametrize(("outputs", "inputs"), [(160, 256), (17, 33), (32, 1100)])
def test_a_product_is_as_exact_as_float32(rows: int, outputs: int, inputs: int) -> None:
    product = Product(random(outputs, inputs))
    x = random(rows, inputs, scale=3)
    assert product.error(x, product.run(x), product.expected(x)) < 3e-7


@pytest.mark.parametrize("rows", [1, 33, 529])
@pytest.mark.parametrize(("outputs", "inputs"), [(160, 256), (17, 33), (32, 1100)])
def test_a_fast_product_rounds_its_numbers_once(rows: int, outputs: int, inputs: int) -> None:
    product = Product(random(outputs, inputs), fast=True)
    x = random(rows, inputs, scale=3)
    made = product.run(x)
    assert product.error(x, made, product.expected(x)) < 2**-9
    np.testing.assert_array_equal(product.run(x[-1:]), made[-1:])


def test_large_numbers_keep_24_bits() -> None:
    inputs = 64
    product = Product(np.eye(inputs, dtype=np.float32))
    magnitudes = np.exp2(np.linspace(60, 100, 7 * inputs)).astype(np.float32)
    x = magnitudes.reshape(7, inputs) * random(7, inputs)  # beside them the bias is nothing
    np.testing.assert_allclose(product.run(x), x, rtol=1.2e-7)


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_activations(gelu: str) -> None:
    product = Product(random(96, 128), gelu=gelu)
    x = random(40, 128, scale=0.5)
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=4e-6, atol=4e-6)


@pytest.mark.parametrize("outputs", [96, 33])
def test_the_residual_is_added_after_the_activation(outputs: int) -> None:
    product = Product(random(outputs, 600), gelu="tanh")
    x, residual = random(37, 600), random(37, outputs, scale=5)
    wanted = product.expected(x) + residual
    assert product.error(x, product.run(x, residual), wanted) < 5e-7


@pytest.mark.parametrize("inputs", [128, 100])
def test_rows_are_normed_first(inputs: int) -> None:
    product = Product(random(64, inputs))
    x, norm = random(35, inputs, scale=4) + 2, random(2, inputs)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(variance + EPSILON) * norm[0] + norm[1]
    wanted = product.expected(normed)
    assert product.error(normed.astype(np.float32), product.run(x, norm=norm), wanted) < 5e-7


def test_what_is_no_number_stays_in_its_row() -> None:
    product = Product(random(64, 128))
    x = random(5, 128)
    x[2, 7] = np.nan
    x[3, 9] = np.inf
    made = product.run(x)
    assert not np.isfinite(made[2:4]).any()
    np.testing.assert_array_equal(made[[0, 1, 4]], product.run(x[[0, 1, 4]]))


@pytest.mark.parametrize("inputs", [96, 600])
def test_a_row_does_not_depend_on_what_is_beside_it(inputs: int) -> None:
    product = Product(random(96, inputs), gelu="tanh")
    x = random(600, inputs)
    together = product.run(x)
    for start, end in ((0, 1), (11, 12), (279, 282), (500, 600)):
        np.testing.assert_array_equal(together[start:end], product.run(x[start:end]))


def test_more_rows_than_are_packed_at_once() -> None:
    inputs = 16000
    product = Product(random(3, inputs))
    x = random(540, inputs)
    made = product.run(x)
    assert product.error(x, made, product.expected(x)) < 3e-7
    np.testing.assert_array_equal(made[-3:], product.run(x[-3:]))


def test_no_rows() -> None:
    assert Product(random(32, 64)).run(np.zeros((0, 64), np.float32)).shape == (0, 32)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Exception, match="MatMulFloat"):
        Product(random(32, 64)).run(random(2, 65))
    with pytest.raises(Exception, match="MatMulFloat"):
        Product(random(32, 64)).run(random(2, 64), residual=random(2, 31))
    with pytest.raises(Exception, match="MatMulFloat"):
        Product(random(32, 64)).run(random(2, 64), norm=random(2, 32))


def test_the_header_and_the_layout_name_the_same_numbers() -> None:
    header = (SOURCES / "products" / "matmul_float.h").read_text()
    found = dict(re.findall(r"^constexpr size_t FLOAT_(\w+) = (\d+);", header, re.MULTILINE))
    wanted = (float_layout.LANES, float_layout.STEP, float_layout.MOST_INPUTS)
    assert tuple(int(found[name]) for name in ("LANES", "STEP", "INPUTS")) == wanted
