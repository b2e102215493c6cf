"""Tandem's operators compute what they say, with every instruction set and grouping of rows."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from decoder_service.kernels import layout, library

Floats = npt.NDArray[np.float32]


@pytest.fixture(params=["best", "avx2"], autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The best one of this processor, and AVX2, which has kernels of its own."""
    path = library.path()
    assert path is not None, "setup has not built the kernels, or the processor lacks AVX2"
    loaded = ctypes.CDLL(str(path))
    loaded.tandem_use_avx2(request.param == "avx2")
    yield request.param
    loaded.tandem_use_avx2(0)


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

    def __init__(self, outputs: int, inputs: int, block_size: int, *, gated: bool = False) -> None:
        random = np.random.default_rng(outputs * inputs + block_size)
        self.inputs, self.block_size, self.gated = inputs, block_size, gated
        blocks = -(-inputs // block_size)
        self.weights = []
        for _ in range(2 if gated else 1):
            nibbles = random.integers(0, 16, (outputs, blocks * block_size)).astype(np.uint8)
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


class Attention:
    """The operator over caches of a number type, and softmax(QK)V in float64."""

    def __init__(self, heads: int, kv_heads: int, size: int, dtype: Any) -> None:
        self.heads, self.kv_heads, self.size, self.dtype = heads, kv_heads, size, np.dtype(dtype)
        cache = TensorProto.FLOAT16 if dtype is np.float16 else TensorProto.FLOAT
        names = ["query", "key", "value", "past_key", "past_value", "lengths"]
        types = [TensorProto.FLOAT] * 3 + [cache] * 2 + [TensorProto.INT32]
        node = helper.make_node(
            "Attention",
            names,
            ["out"],
            domain=layout.DOMAIN,
            num_heads=heads,
            kv_num_heads=kv_heads,
            scale=size**-0.5,
        )
        inputs = [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(names, types, strict=True)
        ]
        self.session = session([node], inputs, [])

    def inputs(self, sequences: int, tokens: int, seed: int = 0) -> list[Floats]:
        random = np.random.default_rng(seed)
        widths = (self.heads, self.kv_heads, self.kv_heads)
        return [
            random.standard_normal((sequences, tokens, width * self.size)).astype(np.float32)
            for width in widths
        ]

    def cache(self, sequences: int, capacity: int) -> list[npt.NDArray[Any]]:
        """Keys and values of earlier tokens; what is behind them must not matter."""
        random = np.random.default_rng(capacity)
        shape = (sequences, self.kv_heads, capacity, self.size)
        return [random.standard_normal(shape).astype(self.dtype) for _ in range(2)]

    def run(
        self, new: list[Floats], cache: list[npt.NDArray[Any]], lengths: npt.NDArray[np.int32]
    ) -> Floats:
        binding = self.session.io_binding()
        arrays = [*new, *cache, lengths - 1]
        names = ["query", "key", "value", "past_key", "past_value", "lengths"]
        for name, array in zip(names, arrays, strict=True):
            data = array.ctypes.data
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, data)
        binding.bind_output("out")
        self.session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0])

    def expected(
        self, new: list[Floats], cache: list[npt.NDArray[Any]], lengths: npt.NDArray[np.int32]
    ) -> Floats:
        """Over a cache that holds the new tokens already."""
        sequences, tokens, _ = new[0].shape
        group = self.heads // self.kv_heads
        queries = new[0].reshape(sequences, tokens, self.kv_heads, group, self.size)
        made = np.zeros(queries.shape, np.float64)
        for s in range(sequences):
            for token in range(tokens):
                seen = lengths[s] - tokens + token + 1
                keys, values = (side[s, :, :seen].astype(np.float64) for side in cache)
                scores = np.einsum("kgd,ktd->kgt", queries[s, token], keys) * self.size**-0.5
                weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
                weights /= weights.sum(axis=-1, keepdims=True)
                made[s, token] = np.einsum("kgt,ktd->kgd", weights, values)
        return made.reshape(new[0].shape).astype(np.float32)

    def check(self, sequences: int, tokens: int, capacity: int, lengths: list[int]) -> None:
        new, cache = self.inputs(sequences, tokens), self.cache(sequences, capacity)
        before = [side.copy() for side in cache]
        ends = np.array(lengths, np.int32)
        out = self.run(new, cache, ends)
        for s, end in enumerate(ends):
            for side, was, fresh in zip(cache, before, new[1:], strict=True):
                rows = fresh[s].reshape(tokens, self.kv_heads, self.size).transpose(1, 0, 2)
                assert np.array_equal(side[s, :, end - tokens : end], rows.astype(self.dtype))
                assert np.array_equal(side[s, :, : end - tokens], was[s, :, : end - tokens])
                assert np.array_equal(side[s, :, end:], was[s, :, end:])
        np.testing.assert_allclose(out, self.expected(new, cache, ends), rtol=1e-5, atol=2e-6)


SHAPES = [(16, 8, 128), (32, 8, 128), (4, 2, 16), (6, 2, 48), (7, 1, 32), (3, 3, 64)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_one_token_of_each_sequence_attends_to_its_own_cache(
    heads: int, kv_heads: int, size: int, dtype: Any
) -> None:
    Attention(heads, kv_heads, size, dtype).check(4, 1, 300, [1, 65, 130, 300])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
@pytest.mark.parametrize(("tokens", "length"), [(2, 2), (37, 37), (50, 180), (70, 71)])
def test_a_chunk_attends_causally(
    heads: int, kv_heads: int, size: int, tokens: int, length: int, dtype: Any
) -> None:
    Attention(heads, kv_heads, size, dtype).check(1, tokens, 200, [length])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_prompt_is_the_same_however_it_is_divided(dtype: Any) -> None:
    attention = Attention(4, 2, 32, dtype)
    new = attention.inputs(1, 150)
    whole = attention.run(new, attention.cache(1, 160), np.array([150], np.int32))
    cache, parts = attention.cache(1, 160), []
    for begin, end in ((0, 40), (40, 107), (107, 150)):
        part = [np.ascontiguousarray(side[:, begin:end]) for side in new]
        parts.append(attention.run(part, cache, np.array([end], np.int32)))
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_large_scores_do_not_overflow() -> None:
    attention = Attention(2, 1, 16, np.float32)
    new, cache = attention.inputs(1, 40), attention.cache(1, 64)
    new[0] *= 1000
    ends = np.array([40], np.int32)
    out = attention.run(new, cache, ends)
    np.testing.assert_allclose(out, attention.expected(new, cache, ends), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_beyond_the_cache_is_refused(length: int) -> None:
    attention = Attention(2, 1, 16, np.float32)
    with pytest.raises(Exception, match="shapes or lengths do not fit"):
        attention.run(attention.inputs(1, 1), attention.cache(1, 64), np.array([length], np.int32))
