"""Tandem's operators compute what they say, with every instruction set and grouping of rows."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kernels import layout, library

Floats = npt.NDArray[np.float32]


SETS = ("avx2", "avxvnni", "avx512")  # in the order of `tandem_allow`, from 1 on


@pytest.fixture(params=SETS, autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every one that this processor has: each has kernels of its own."""
    path = library.path()
    assert path is not None, "setup has not built the kernels, or the processor lacks AVX2"
    loaded = ctypes.CDLL(str(path))
    loaded.tandem_instruction_set.restype = ctypes.c_char_p
    loaded.tandem_allow(1 + SETS.index(request.param))
    if loaded.tandem_instruction_set().decode() == request.param:
        yield request.param
        loaded.tandem_allow(len(SETS))
    else:
        loaded.tandem_allow(len(SETS))
        pytest.skip(f"this processor has no {request.param}")


def session(nodes: list[Any], inputs: list[Any], constants: list[Any]) -> ort.InferenceSession:
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "test", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(layout.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library.path()))
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Product:
    """A random weight, its operator, and the same arithmetic in NumPy."""

    def __init__(
        self,
        outputs: int,
        inputs: int,
        block_size: int,
        *,
        gated: bool = False,
        lowest: int = 0,
    ) -> None:
        random = np.random.default_rng(outputs * inputs + block_size)
        self.inputs, self.block_size, self.gated = inputs, block_size, gated
        blocks = -(-inputs // block_size)
        self.weights = []
        for _ in range(2 if gated else 1):
            nibbles = random.integers(lowest, 16, (outputs, blocks * block_size)).astype(np.uint8)
            scales = random.uniform(0.001, 0.02, (outputs, blocks)).astype(np.float32)
            self.weights.append((nibbles, scales))
        joined = np.concatenate([nibbles for nibbles, _ in self.weights])
        pairs = (joined[:, 0::2] | joined[:, 1::2] << 4).astype(np.uint8)
        pack = layout.pack_gated if gated else layout.pack
        packed = pack(
            pairs.reshape(-1, blocks, block_size // 2),
            np.concatenate([scales for _, scales in self.weights]),
        )
        node = helper.make_node(
            layout.MATMUL,
            ["x", "values", "scales"],
            ["out"],
            domain=layout.DOMAIN,
            K=inputs,
            N=outputs,
            block_size=block_size,
            gated=int(gated),
        )
        self.session = session(
            [node],
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(packed.values, "values"),
                numpy_helper.from_array(packed.scales, "scales"),
            ],
        )

    def run(self, x: Floats) -> Floats:
        (made,) = self.session.run(None, {"x": x})
        return np.asarray(made)

    def expected(self, x: Floats) -> Floats:
        rows = x.reshape(-1, self.inputs)
        padded = np.zeros((len(rows), self.weights[0][0].shape[1]), np.float32)
        padded[:, : self.inputs] = rows
        blocks = padded.reshape(len(rows), -1, self.block_size)
        peaks = np.abs(blocks).max(axis=-1, keepdims=True)
        peaks = np.where(peaks < 1e-30, np.float32(0), peaks)
        inverse = np.divide(np.float32(127), peaks, out=np.zeros_like(peaks), where=peaks > 0)
        integers = np.rint(blocks * inverse)
        made = []
        for nibbles, scales in self.weights:
            weight = nibbles.reshape(len(nibbles), -1, self.block_size).astype(np.float64) - 8
            sums = np.einsum("rbk,nbk->rnb", integers.astype(np.float64), weight)
            scaled = scales[None].astype(np.float64) * (peaks / np.float32(127))[:, None, :, 0]
            made.append((sums * scaled).sum(axis=-1))
        result = made[0] / (1 + np.exp(-made[0])) * made[1] if self.gated else made[0]
        return np.asarray(result.reshape(*x.shape[:-1], -1), np.float32)


def activations(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 3


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 31, 64])
@pytest.mark.parametrize(("outputs", "inputs", "block_size"), [(96, 256, 128), (40, 72, 32)])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_a_product_is_that_of_the_integers(
    rows: int, outputs: int, inputs: int, block_size: int, gated: bool
) -> None:
    product = Product(outputs, inputs, block_size, gated=gated)
    x = activations(rows, inputs)
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("block_size", [16, 32, 64, 256])
def test_every_block_size_and_odd_widths(block_size: int) -> None:
    product = Product(17, 400, block_size)
    x = activations(1, 3, 400)
    assert product.run(x).shape == (1, 3, 17)
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("rows", [1, 2, 4, 12])
@pytest.mark.parametrize("block_size", [48, 256])  # six octets are not a multiple of four
def test_the_largest_integers_do_not_overflow(rows: int, block_size: int) -> None:
    product = Product(32, 3 * block_size, block_size, lowest=15)
    x = np.full((rows, 3 * block_size), 127, np.float32)
    x[1::2] = -127
    np.testing.assert_allclose(product.run(x), product.expected(x), rtol=1e-6)


def test_a_row_is_the_same_alone_and_among_others() -> None:
    product = Product(208, 384, 128, gated=True)
    x = activations(45, 384)
    together = product.run(x)
    for begin, end in ((0, 1), (7, 9), (20, 32), (3, 44)):
        assert np.array_equal(product.run(x[begin:end]), together[begin:end])


def test_zeros_and_tiny_rows_do_not_become_nan() -> None:
    product = Product(32, 128, 64)
    x = np.zeros((3, 128), np.float32)
    x[1, :] = 1e-38
    assert np.array_equal(product.run(x), np.zeros((3, 32), np.float32))


def test_no_rows_are_no_work() -> None:
    assert Product(32, 128, 64).run(np.zeros((0, 128), np.float32)).shape == (0, 32)


def test_another_width_is_refused() -> None:
    with pytest.raises(Exception, match="last dimension is not K"):
        Product(32, 128, 64).run(activations(2, 64))


Ints = npt.NDArray[np.int32]
Caches = list[npt.NDArray[Any]]
EPSILON = 1e-6


class Attention:
    """The operator over caches of a number type, and the same in float64."""

    def __init__(self, heads: int, kv_heads: int, size: int, dtype: Any) -> None:
        self.heads, self.kv_heads, self.size, self.dtype = heads, kv_heads, size, np.dtype(dtype)
        random = np.random.default_rng(size)
        self.norms = [random.uniform(0.5, 2, size).astype(np.float32) for _ in range(2)]
        cache = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
        names = ["joined", "query_norm", "key_norm", "cos", "sin", "keys", "values", "sequences"]
        types = [TensorProto.FLOAT] * 5 + [cache] * 2 + [TensorProto.INT32]
        self.names = names
        node = helper.make_node(
            layout.ATTENTION,
            names,
            ["out"],
            domain=layout.DOMAIN,
            num_heads=heads,
            kv_num_heads=kv_heads,
            scale=size**-0.5,
            epsilon=EPSILON,
        )
        inputs = [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(names, types, strict=True)
        ]
        self.session = session([node], inputs, [])

    def rows(self, count: int) -> list[Floats]:
        """Joined products and the angles' cosines and sines of that many rows."""
        random = np.random.default_rng(count)
        width = (self.heads + 2 * self.kv_heads) * self.size
        angles = random.uniform(0, 6, (1, count, self.size // 2))
        joined = random.standard_normal((1, count, width)) * 3
        return [part.astype(np.float32) for part in (joined, np.cos(angles), np.sin(angles))]

    def cache(self, slots: int, capacity: int) -> Caches:
        """Keys and values of earlier tokens; what is behind them must not matter."""
        random = np.random.default_rng(capacity)
        shape = (slots, self.kv_heads, capacity, self.size)
        return [random.standard_normal(shape).astype(self.dtype) for _ in range(2)]

    def run(self, rows: list[Floats], cache: Caches, sequences: Ints) -> Floats:
        binding = self.session.io_binding()
        arrays = [rows[0], *self.norms, *rows[1:], *cache, sequences]
        for name, array in zip(self.names, arrays, strict=True):
            data = array.ctypes.data
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, data)
        binding.bind_output("out")
        self.session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0])

    def turned(self, rows: list[Floats]) -> tuple[Any, Any, Any]:
        """Queries, keys and values [rows, heads, size] after norms and rotary positions."""
        joined, cos, sin = (part[0].astype(np.float64) for part in rows)
        parts = joined.reshape(len(joined), -1, self.size)
        ends = self.heads, self.heads + self.kv_heads
        queries, keys, values = np.split(parts, ends, axis=1)
        made = []
        for side, weight in zip((queries, keys), self.norms, strict=True):
            mean = (side**2).mean(axis=-1, keepdims=True)
            normed = side / np.sqrt(mean + EPSILON) * weight
            real, imaginary = np.split(normed, 2, axis=-1)
            c, s = cos[:, None], sin[:, None]
            made.append(np.concatenate([real * c - imaginary * s, imaginary * c + real * s], -1))
        return made[0], made[1], values

    def expected(self, rows: list[Floats], cache: Caches, sequences: Ints) -> Floats:
        """Over a cache that holds the new tokens already."""
        queries, _, _ = self.turned(rows)
        group = self.heads // self.kv_heads
        grouped = queries.reshape(len(queries), self.kv_heads, group, self.size)
        made, row = np.zeros(grouped.shape), 0
        for slot, tokens, past in sequences:
            for token in range(tokens):
                keys, values = (side[slot, :, : past + token + 1].astype(float) for side in cache)
                scores = np.einsum("kgd,ktd->kgt", grouped[row], keys) * self.size**-0.5
                weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
                weights /= weights.sum(axis=-1, keepdims=True)
                made[row] = np.einsum("kgt,ktd->kgd", weights, values)
                row += 1
        return made.reshape(1, len(queries), -1).astype(np.float32)

    def check(self, slots: int, capacity: int, *sequences: tuple[int, int, int]) -> None:
        """Runs (slot, tokens, past) of each sequence; compares results, and the cache's rows."""
        listed = np.array(sequences, np.int32)
        rows, cache = self.rows(int(listed[:, 1].sum())), self.cache(slots, capacity)
        before = [side.copy() for side in cache]
        out = self.run(rows, cache, listed)
        tolerance = 2e-3 if self.dtype == np.float16 else 2e-5
        for side, was, fresh in zip(cache, before, self.turned(rows)[1:], strict=True):
            row = 0
            for slot, tokens, past in sequences:
                new = fresh[row : row + tokens].transpose(1, 0, 2)
                found = side[slot, :, past : past + tokens].astype(np.float64)
                np.testing.assert_allclose(found, new, rtol=tolerance, atol=tolerance)
                was[slot, :, past : past + tokens] = side[slot, :, past : past + tokens]
                row += tokens
            assert np.array_equal(side, was), "something else was written"
        np.testing.assert_allclose(out, self.expected(rows, cache, listed), rtol=1e-4, atol=1e-4)


SHAPES = [(16, 8, 128), (32, 8, 128), (4, 2, 16), (6, 2, 48), (7, 1, 32), (3, 3, 64), (2, 2, 256)]
every_cache = pytest.mark.parametrize("dtype", [np.float32, np.float16])
every_shape = pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)


@every_cache
@every_shape
def test_one_token_of_each_sequence_attends_to_its_own_cache(
    heads: int, kv_heads: int, size: int, dtype: Any
) -> None:
    attention = Attention(heads, kv_heads, size, dtype)
    attention.check(5, 300, (0, 1, 0), (3, 1, 64), (1, 1, 129), (4, 1, 299))


@every_cache
@every_shape
@pytest.mark.parametrize(("tokens", "past"), [(2, 0), (37, 0), (50, 130), (70, 1)])
def test_a_chunk_attends_causally(
    heads: int, kv_heads: int, size: int, tokens: int, past: int, dtype: Any
) -> None:
    Attention(heads, kv_heads, size, dtype).check(2, 200, (1, tokens, past))


@every_cache
def test_sequences_of_every_kind_run_side_by_side(dtype: Any) -> None:
    attention = Attention(4, 2, 32, dtype)
    attention.check(6, 200, (5, 1, 77), (0, 40, 0), (2, 1, 0), (1, 3, 100), (4, 90, 64))


@every_cache
def test_a_prompt_is_the_same_however_it_is_divided_and_whatever_runs_beside_it(
    dtype: Any,
) -> None:
    attention = Attention(4, 2, 32, dtype)
    rows = attention.rows(152)
    cache = attention.cache(2, 160)
    whole = attention.run(rows, cache, np.array([[0, 150, 0], [1, 2, 9]], np.int32))
    cache, parts = attention.cache(2, 160), []
    for begin, end in ((0, 40), (40, 107), (107, 150)):
        part = [np.ascontiguousarray(side[:, begin:end]) for side in rows]
        sequences = np.array([[1, end - begin, begin]], np.int32)
        parts.append(attention.run(part, cache, sequences))
    assert np.array_equal(np.concatenate(parts, axis=1), whole[:, :150])


def test_large_scores_do_not_overflow() -> None:
    attention = Attention(2, 1, 16, np.float32)
    attention.norms[0] *= 1000
    rows, cache = attention.rows(40), attention.cache(1, 64)
    sequences = np.array([[0, 40, 0]], np.int32)
    out = attention.run(rows, cache, sequences)
    expected = attention.expected(rows, cache, sequences)
    np.testing.assert_allclose(out, expected, rtol=1e-2, atol=1e-2)


def test_small_rows_are_normed_with_epsilon() -> None:
    attention = Attention(4, 2, 32, np.float32)
    rows, cache = attention.rows(3), attention.cache(1, 64)
    rows[0] *= 3e-4  # a mean square of the size of epsilon
    sequences = np.array([[0, 3, 20]], np.int32)
    out = attention.run(rows, cache, sequences)
    np.testing.assert_allclose(out, attention.expected(rows, cache, sequences), atol=1e-4)
    keys = attention.turned(rows)[1].transpose(1, 0, 2)
    np.testing.assert_allclose(cache[0][0, :, 20:23], keys, atol=1e-5)


def test_a_float16_cache_clips_what_it_cannot_hold_and_keeps_nan() -> None:
    attention = Attention(2, 1, 16, np.float16)
    rows, cache = attention.rows(1), attention.cache(1, 64)
    rows[0][..., 3 * 16 :] = 1e6  # values
    out = attention.run(rows, cache, np.array([[0, 1, 0]], np.int32))
    assert (cache[1][0, 0, 0] == 65504).all()
    assert (out == 65504).all()
    rows[0][..., 3 * 16] = np.nan
    out = attention.run(rows, cache, np.array([[0, 1, 1]], np.int32))
    assert np.isnan(cache[1][0, 0, 1, 0])
    assert np.isnan(out).any()


@pytest.mark.parametrize(
    "sequences",
    [
        [[0, 2, 63]],  # beyond the capacity
        [[2, 2, 0]],  # a slot that is not there
        [[-1, 2, 0]],
        [[0, 2, -1]],
        [[0, 1, 0]],  # fewer tokens than rows
        [[0, 1, 0], [1, 2, 0]],  # more
        [[0, 0, 0], [1, 2, 0]],  # no token
        [[0, 2]],
    ],
)
def test_sequences_that_do_not_fit_are_refused(sequences: list[list[int]]) -> None:
    attention = Attention(2, 1, 16, np.float32)
    with pytest.raises(Exception, match="the sequences do not fit"):
        attention.run(attention.rows(2), attention.cache(2, 64), np.array(sequences, np.int32))


def test_other_shapes_are_refused() -> None:
    attention, other = (Attention(2, 1, size, np.float32) for size in (16, 32))
    with pytest.raises(Exception, match="shapes or types"):
        attention.run(other.rows(2), attention.cache(2, 64), np.array([[0, 2, 0]], np.int32))
