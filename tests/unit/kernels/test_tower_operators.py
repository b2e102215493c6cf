"""The tower's operators compute what they say, with every instruction set the processor has."""

import ctypes
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import int8_layout, layout, library

Floats = npt.NDArray[np.float32]

SETS = ("avx2", "avxvnni", "avx512", "amx")  # in the order of `tandem_allow`, from 1 on


@pytest.fixture(params=SETS, autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every one that this processor has: each has kernels of its own."""
    path = library.path()
    assert path is not None, "setup has not built the kernels, or the processor lacks AVX2"
    loaded = ctypes.CDLL(str(path))
    loaded.tandem_instruction_set.restype = ctypes.c_char_p
    loaded.tandem_allow(1 + SETS.index(request.param))
    found = "amx" if loaded.tandem_has_tiles() else loaded.tandem_instruction_set().decode()
    if found == request.param:
        yield request.param
        loaded.tandem_allow(len(SETS))
    else:
        loaded.tandem_allow(len(SETS))
        pytest.skip(f"this processor has no {request.param}")


def session(node: Any, inputs: dict[str, int], constants: list[Any]) -> ort.InferenceSession:
    given = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "test", given, [output], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(layout.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library.path()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def random(*shape: int, scale: float = 1.0) -> Floats:
    made = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return made * np.float32(scale)


# ---------------------------------------------------------------------------------------------
# MatMulInt8


class Product:
    """A weight [N, K] and its operator, and the same arithmetic in NumPy."""

    EPSILON = 1e-6

    def __init__(
        self, weight: Floats, *, gelu: str | None = None, is_rounded: bool = False
    ) -> None:
        self.gelu = gelu
        outputs, inputs = weight.shape
        values, scales = int8_layout.quantize(weight)
        if is_rounded:  # integers, which stay as they are
            values, scales = weight.astype(np.int8), np.ones(outputs, np.float32)
        self.values, self.scales = values, scales
        self.bias = random(outputs)
        packed = int8_layout.pack(self.values, self.scales, self.bias)
        names = ("values", "scales", "sums", "biases")
        node = helper.make_node(
            int8_layout.MATMUL,
            ["x", *names, "residual", "norm"],
            ["out"],
            domain=layout.DOMAIN,
            K=inputs,
            N=outputs,
            activation=int8_layout.ACTIVATIONS[gelu],
            epsilon=self.EPSILON,
        )
        self.session = session(
            node,
            dict.fromkeys(("x", "residual", "norm"), TensorProto.FLOAT),
            [numpy_helper.from_array(getattr(packed, name), name) for name in names],
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

    def integers(self, x: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
        """Rows in int8, and their scales and the middles of their ranges, both [rows, 1]."""
        high, low = x.max(axis=1, keepdims=True), x.min(axis=1, keepdims=True)
        middles = np.float32(0.5) * high + np.float32(0.5) * low
        most = high - middles
        inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
        return (
            np.rint((x - middles) * inverse).astype(np.int64),
            most / np.float32(127),
            middles,
        )

    def expected(self, x: Floats, residual: Floats | None = None) -> npt.NDArray[np.float64]:
        rows, scales, middles = self.integers(x)
        values = self.values.astype(np.int64)
        products = rows @ values.T * scales.astype(np.float64) + middles * values.sum(axis=1)
        made = products * self.scales + self.bias
        if self.gelu == "tanh":
            inner = math.sqrt(2 / math.pi) * (made + 0.044715 * made**3)
            made = 0.5 * made * (1 + np.tanh(inner))
        elif self.gelu == "none":
            made = 0.5 * made * (1 + np.vectorize(math.erf)(made / math.sqrt(2)))
        return np.asarray(made if residual is None else made + residual, np.float64)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12, 13, 32, 33, 70])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 256), (40, 72), (17, 36), (32, 64)])
def test_a_product_is_that_of_the_integers(rows: int, outputs: int, inputs: int) -> None:
    product = Product(random(outputs, inputs))
    x = random(rows, inputs, scale=3)
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_integers_do_not_overflow(sign: int) -> None:
    weight = np.full((64, 4096), 127, np.float32)
    weight[1::2] = -127
    product = Product(weight)
    x = np.full((33, 4096), 127 * sign, np.float32)
    x[:, 0] *= -1  # so that the bytes are the numbers
    wanted = np.where(np.arange(64) % 2, -1, 1) * float(sign * 127 * 127 * 4094)
    without_bias = product.run(x).astype(np.float64) - product.bias
    np.testing.assert_allclose(without_bias, np.broadcast_to(wanted, (33, 64)), rtol=1e-7)


@pytest.mark.parametrize(
    ("most", "inputs"), [(64, 36), (65, 200), (127, 200), (127, int8_layout.MOST_INPUTS)]
)
def test_no_mixture_of_large_integers_overflows(most: int, inputs: int) -> None:
    # 16-bit sums of two products hold weights that add up to 128, and not to 129.
    numbers = np.random.default_rng(most + inputs)
    weight = numbers.choice(np.array([-most, -64, -1, 0, 1, 64, most]), (40, inputs))
    weight[:8], weight[8] = most, -most
    rows = numbers.choice(np.array([-127, 127]), (23, inputs))
    rows[:, :2] = 127, -127  # so that the bytes are the numbers
    product = Product(weight.astype(np.float32), is_rounded=True)
    without_bias = product.run(rows.astype(np.float32)).astype(np.float64) - product.bias
    np.testing.assert_allclose(without_bias, rows.astype(np.int64) @ weight.T, rtol=2e-7, atol=1)


def test_a_row_of_one_number_is_exact() -> None:
    product = Product(random(96, 100))
    x = np.repeat(random(7, 1), 100, axis=1)
    exact = x.astype(np.float64) @ (product.values * product.scales[:, None].astype(float)).T
    np.testing.assert_allclose(product.run(x), exact + product.bias, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_activations(gelu: str) -> None:
    product = Product(random(96, 128), gelu=gelu)
    x = random(40, 128, scale=0.5)
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outputs", [96, 33])
def test_the_residual_is_added(outputs: int) -> None:
    product = Product(random(outputs, 128))
    x, residual = random(37, 128), random(37, outputs, scale=5)
    wanted = product.expected(x, residual)
    np.testing.assert_allclose(product.run(x, residual), wanted, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("inputs", [128, 100])
def test_rows_are_normed_before_they_are_quantized(inputs: int) -> None:
    product = Product(random(64, inputs))
    x, norm = random(35, inputs, scale=4) + 2, random(2, inputs)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(variance + product.EPSILON) * norm[0] + norm[1]
    wanted = product.expected(normed.astype(np.float32))
    # A number close to the middle between two integers may be rounded either way.
    step = np.abs(normed).max() / 127 * product.scales.max() * 127
    made = product.run(x, norm=norm)
    assert np.abs(made - wanted).max() <= 2 * step
    assert np.mean(np.abs(made - wanted) > 1e-4) < 0.05


def test_rows_of_zero_and_of_no_number() -> None:
    product = Product(random(64, 128))
    x = random(5, 128)
    x[1] = 0
    x[2, 7] = np.nan
    x[3, 9] = np.inf
    made = product.run(x)
    np.testing.assert_array_equal(made[1], product.bias)
    assert np.isnan(made[2:4]).all()
    np.testing.assert_array_equal(made[[0, 4]], product.run(x[[0, 4]]))


def test_a_row_does_not_depend_on_what_is_beside_it() -> None:
    product = Product(random(96, 128), gelu="tanh")
    x = random(50, 128)
    together = product.run(x)
    for row in (0, 11, 31, 49):
        np.testing.assert_array_equal(together[row : row + 1], product.run(x[row : row + 1]))


def test_no_rows() -> None:
    assert Product(random(32, 64)).run(np.zeros((0, 64), np.float32)).shape == (0, 32)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Exception, match="MatMulInt8"):
        Product(random(32, 64)).run(random(2, 65))
    with pytest.raises(Exception, match="MatMulInt8"):
        Product(random(32, 64)).run(random(2, 64), residual=random(2, 31))


# ---------------------------------------------------------------------------------------------
# TowerAttention


def attention(heads: int, *, fast: bool = False) -> ort.InferenceSession:
    node = helper.make_node(
        int8_layout.ATTENTION,
        ["joined", "cos", "sin", "bounds"],
        ["out"],
        domain=layout.DOMAIN,
        num_heads=heads,
        fast=int(fast),
    )
    floats = dict.fromkeys(("joined", "cos", "sin"), TensorProto.FLOAT)
    return session(node, {**floats, "bounds": TensorProto.INT64}, [])


def attend(
    joined: Floats, angles: Floats, bounds: list[int], heads: int
) -> npt.NDArray[np.float64]:
    """The same in float64: rotary positions, and softmax within each segment."""
    rows = len(joined)
    parts = joined.astype(np.float64).reshape(rows, 3, heads, -1).transpose(1, 2, 0, 3)
    real, imaginary = np.split(parts[:2], 2, axis=-1)
    cosines, sines = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
    queries, keys = np.concatenate(
        [real * cosines - imaginary * sines, imaginary * cosines + real * sines], axis=-1
    )
    made = np.zeros_like(queries)
    for start, end in zip(bounds, bounds[1:], strict=False):
        if start == end:
            continue
        segment = slice(start, end)
        scores = queries[:, segment] @ keys[:, segment].transpose(0, 2, 1)
        scores /= math.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        made[:, segment] = weights @ parts[2][:, segment]
    return np.asarray(made.transpose(1, 0, 2).reshape(rows, -1))


BOUNDS = ([0, 1], [0, 5, 5, 40], [0, 48, 49, 145], [0, 300], [0, 33, 161, 170], [0, 4, 8, 72, 1072])


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("size", [12, 32, 64, 72, 80, 128, 250])
def test_attention_is_that_within_each_segment(size: int, bounds: list[int]) -> None:
    heads, rows = 3, bounds[-1]
    joined = random(rows, 3 * heads * size)
    angles = random(rows, size // 2, scale=3)
    feeds = {"joined": joined, "cos": np.cos(angles), "sin": np.sin(angles)}
    (made,) = attention(heads).run(None, {**feeds, "bounds": np.array(bounds)})
    wanted = attend(joined, angles, bounds, heads)
    assert np.abs(made - wanted).max() <= 3e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("size", [12, 34, 64, 72, 80, 128])
def test_fast_attention_keeps_directions(size: int, bounds: list[int]) -> None:
    heads, rows = 3, bounds[-1]
    joined = random(rows, 3 * heads * size)
    # What the means and middles are for: keys and values that lie far from zero.
    joined[:, heads * size :] += random(2 * heads * size, scale=4)
    ones = np.ones((rows, size // 2), np.float32)
    feeds = {"joined": joined, "cos": ones, "sin": 0 * ones, "bounds": np.array(bounds)}
    (made,) = attention(heads, fast=True).run(None, feeds)
    wanted = attend(joined, np.zeros((rows, size // 2), np.float32), bounds, heads)
    middle = wanted.mean(axis=0)
    spread = np.sqrt(((wanted - middle) ** 2).mean())
    error = np.sqrt(((made - wanted) ** 2).mean())
    assert error <= 0.012 * max(spread, 0.1)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("patches", [5, 40, 300])
@pytest.mark.parametrize("far", [-300, -40, 40, 300])
def test_a_softmax_does_not_see_where_its_scores_lie(patches: int, far: int, fast: bool) -> None:
    # Nor where they rise to: the first keys' scores tell nothing of the last ones'.
    heads, size = 2, 64
    joined = random(patches, 3 * heads * size)
    joined[:, 0], joined[:, heads * size] = 8, np.linspace(0, far, patches)
    angles = np.zeros((patches, size // 2), np.float32)
    feeds = {"joined": joined, "cos": np.cos(angles), "sin": np.sin(angles)}
    (made,) = attention(heads, fast=fast).run(None, {**feeds, "bounds": np.array([0, patches])})
    wanted = attend(joined, angles, [0, patches], heads)
    # A score of 300 is rounded by as much more than one of 3.
    assert np.abs(made - wanted).max() <= (0.5 if fast else 1e-4) * np.abs(wanted).max()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("bounds", [[0, 4, 8, 12], [0, 40, 73, 140], [0, 300, 305, 372]], ids=str)
def test_what_is_no_number_stays_in_its_segment(
    bounds: list[int], number: float, fast: bool
) -> None:
    heads, size = 2, 64
    joined, angles = random(bounds[-1], 3 * heads * size), random(bounds[-1], size // 2)
    feeds = {"joined": joined, "cos": np.cos(angles), "sin": np.sin(angles)}
    operator = attention(heads, fast=fast)
    (clean,) = operator.run(None, {**feeds, "bounds": np.array(bounds)})
    bad = joined.copy()
    bad[bounds[1]] = number
    (made,) = operator.run(None, {**feeds, "joined": bad, "bounds": np.array(bounds)})
    inside = slice(bounds[1], bounds[2])
    assert fast or np.isnan(made[bounds[1]]).all()
    made[inside] = clean[inside]
    np.testing.assert_array_equal(made, clean)


def test_a_crowd_of_small_weights_counts_beside_a_large_one() -> None:
    size, rows = 64, 3001
    joined = np.zeros((rows, 3 * size), np.float32)
    joined[:, 0] = 8  # all queries look along the first number
    joined[0, size] = 8  # one key has a score of 8, 3000 have 0: e ** 8 = 2981
    joined[0, 2 * size :], joined[1:, 2 * size :] = 1, -1
    ones = np.ones((rows, size // 2), np.float32)
    feeds = {"joined": joined, "cos": ones, "sin": 0 * ones, "bounds": np.array([0, rows])}
    (made,) = attention(1, fast=True).run(None, feeds)
    share = math.exp(8) / (math.exp(8) + rows - 1)
    np.testing.assert_allclose(made, 2 * share - 1, atol=0.05)


def test_fast_attention_does_not_depend_on_what_is_beside_it() -> None:
    bounds, heads, size = [0, 61, 100], 2, 64
    joined, angles = random(100, 3 * heads * size), random(100, size // 2, scale=3)
    feeds = {"joined": joined, "cos": np.cos(angles), "sin": np.sin(angles)}
    operator = attention(heads, fast=True)
    (together,) = operator.run(None, {**feeds, "bounds": np.array(bounds)})
    for start, end in ((0, 61), (61, 100)):
        one = {name: value[start:end] for name, value in feeds.items()}
        (alone,) = operator.run(None, {**one, "bounds": np.array([0, end - start])})
        np.testing.assert_array_equal(alone, together[start:end])


def test_bounds_that_do_not_cover_the_patches_are_refused() -> None:
    feeds = {"joined": random(4, 24), "cos": random(4, 4), "sin": random(4, 4)}
    for bounds in ([0, 3], [1, 4], [0, 5, 4], [], [0, -1, 4]):
        with pytest.raises(Exception, match="TowerAttention"):
            attention(1).run(None, {**feeds, "bounds": np.array(bounds, np.int64)})
