"""The graphs for Tandem's operators compute exactly the integers they say, for any number of rows.

The emulation is transformers' model with every product replaced by the same arithmetic in NumPy:
activations rounded to int8 with a scale for each row and block, the portable graph's integers,
their sums scaled and added block after block. Only float32 sums differ in order; where that moves a
value across a rounding border one step of 1/127 follows, which the tiny models' sharp attention
magnifies, for that row and for those that look at it. The rows before the first border tell that
the arithmetic is the same, the mean over all rows that borders are all that differs.
"""

import functools
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from decoder_service.model.batch import Segments
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.model.flat_runner import FlatRunner
from decoder_service.model.portable_runner import PortableRunner
from deploy.export.decoder.kernel_products import PAGE_BYTES
from kernels import library
from protos.bundle.manifest import Bundle
from tests.support.blockwise import BlockwiseLinear
from tests.support.bundles import bundle, checkpoint
from tests.support.dequantized import with_products
from tests.support.graphs import GraphInputs, GraphSession
from tests.support.oracle import Oracle, oracle
from tests.support.runners import logits_of, open_runner
from tests.support.talks import FIVE_IMAGES

NAMES = ("tied", "deep")  # the others' heads are narrower than the operators take
ROW_TOLERANCE = 1e-5  # logits have a standard deviation of 3
ROWS_BEFORE_A_BORDER = 10
MEAN_TOLERANCE = 0.03
AGREEMENT = 0.97
# Keys and values of 11 bits move every row, and the tiny models' attention is sharp.
HALF_MEAN_TOLERANCE = 0.2
HALF_AGREEMENT = 0.9
CONTEXT = 640


@functools.cache
def emulated(name: str) -> Oracle:
    return with_products(oracle(checkpoint(name)), bundle(name, "int4"), BlockwiseLinear)


@functools.cache
def prompt(name: str) -> tuple[GraphInputs, np.ndarray]:
    """A prompt with images, and the emulation's logits of it."""
    reference = emulated(name)
    prepared = reference.prepare(FIVE_IMAGES.to_transformers(), FIVE_IMAGES.images())
    inputs = GraphSession(bundle(name, "fp32")).inputs(oracle(checkpoint(name)), prepared)
    return inputs, reference.logits(prepared)


class Decoder:
    """The runner over ten slots, with whatever graphs are chosen."""

    def __init__(self, name: str, kernels: str = "tandem", kv_dtype: str = "float32") -> None:
        self.bundle = Bundle.open(bundle(name, "int4"))
        self.runner, self.cache = open_runner(
            self.bundle.path, slots=10, context=CONTEXT, kernels=kernels, kv_dtype=kv_dtype
        )
        text = self.bundle.manifest.text
        ids = np.random.default_rng(3).integers(0, text.vocab_size, 64)
        self.embeds = EmbeddingTable.open(self.bundle).rows(ids)

    def chunk(self, slot: int, begin: int, end: int) -> Segments:
        """Tokens of a prompt of random ones, whose logits are all wanted."""
        positions = np.arange(begin, end, dtype=np.int32)
        return Segments(
            slot=slot,
            past=np.array([begin], np.int32),
            embeds=self.embeds[begin:end],
            position_ids=np.tile(positions, (3, 1)),
            logit_rows=np.arange(end - begin),
        )

    def step(self, count: int, past: int) -> Segments:
        """The prompt's next token in each of the first slots."""
        places = np.full(count, past)
        return Segments(
            slot=0,
            past=places.astype(np.int32),
            embeds=self.embeds[places],
            position_ids=places,
            logit_rows=np.arange(count),
        )

    def run(self, *batch: Segments) -> list[np.ndarray]:
        """The logits of each part."""
        return list(logits_of(self.runner, *batch))


def run_prompt(decoder: Decoder, inputs: GraphInputs, last: int) -> np.ndarray:
    """Logits of every row: a chunk, then the last ones token by token."""
    begin = len(inputs.embeds) - last
    prompt = Segments(
        slot=0,
        past=np.array([0], np.int32),
        embeds=inputs.embeds[:begin],
        position_ids=inputs.position_ids[:, :begin].astype(np.int32),
        deepstack=np.stack([level[:begin] for level in inputs.deepstack]),
        logit_rows=np.arange(begin),
    )
    found = decoder.run(prompt)
    for past in range(begin, len(inputs.embeds)):
        step = Segments(
            slot=0,
            past=np.array([past], np.int32),
            embeds=inputs.embeds[past : past + 1],
            position_ids=inputs.position_ids[0, past : past + 1],
            logit_rows=np.array([0]),
        )
        found += decoder.run(step)
    return np.concatenate(found)


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_the_same_integer_arithmetic_in_numpy(name: str) -> None:
    inputs, expected = prompt(name)
    found = run_prompt(Decoder(name), inputs, last=4)
    difference = np.abs(found - expected)
    assert (np.median(difference, axis=1)[:ROWS_BEFORE_A_BORDER] < ROW_TOLERANCE).all()
    assert difference.mean() < MEAN_TOLERANCE
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > AGREEMENT


@pytest.mark.parametrize("name", NAMES)
def test_a_float16_cache_answers_nearly_the_same(name: str) -> None:
    inputs, expected = prompt(name)
    found = run_prompt(Decoder(name, kv_dtype="float16"), inputs, last=4)
    assert np.abs(found - expected).mean() < HALF_MEAN_TOLERANCE
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > HALF_AGREEMENT


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(name: str, kv_dtype: str) -> None:
    decoder = Decoder(name, kv_dtype=kv_dtype)
    (whole,) = decoder.run(decoder.chunk(0, 0, 40))
    parts = [decoder.run(decoder.chunk(9, *ends))[0] for ends in ((0, 17), (17, 40))]
    assert np.array_equal(np.concatenate(parts), whole)
    for slot in range(1, 8):
        decoder.run(decoder.chunk(slot, 0, 40))
    (eight,) = decoder.run(decoder.step(8, 40))
    (alone,) = decoder.run(decoder.step(1, 40))
    assert all(np.array_equal(row, alone[0]) for row in eight)


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_beside_decoding_sequences_give_what_each_gives_alone_to_the_bit(
    name: str, kv_dtype: str
) -> None:
    decoder = Decoder(name, kv_dtype=kv_dtype)
    for slot in range(3):
        decoder.run(decoder.chunk(slot, 0, 30 + slot))
    batch = [decoder.chunk(9, 0, 25), decoder.chunk(5, 0, 11), decoder.step(3, 30)]
    for part, found in zip(batch, decoder.run(*batch), strict=True):
        assert np.array_equal(found, decoder.run(part)[0])


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library_the_portable_graph_answers_nearly_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Decoder(name, kernels="auto")
    assert isinstance(ours.runner, FlatRunner)
    monkeypatch.setattr(library, "path", lambda: None)
    theirs = Decoder(name, kernels="auto")
    assert isinstance(theirs.runner, PortableRunner)
    chunk = ours.chunk(0, 0, 40)
    (found,), (expected,) = ours.run(chunk), theirs.run(chunk)
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_once_and_start_on_pages(name: str) -> None:
    opened = Bundle.open(bundle(name, "int4"))
    graphs = [graph for graph in opened.manifest.graphs if graph.kernels == "tandem"]
    assert [graph.kv_dtype for graph in graphs] == ["float16", "float32"]
    places = [weight_places(opened.path / graph.file) for graph in graphs]
    assert len(places[0]) == 2 * (4 * opened.manifest.text.num_hidden_layers + 1)
    assert all(found == places[0] for found in places)
    for file, offset in places[0].values():
        assert file == "model.tandem.onnx.data"
        assert offset % PAGE_BYTES == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_plan_counts_what_a_graph_maps(name: str) -> None:
    opened = Bundle.open(bundle(name, "int4"))
    inline = 64 * 1024  # small constants lie in the graph itself
    stored = (opened.path / "decoder" / "model.onnx.data").stat().st_size
    for graph in opened.manifest.graphs:
        assert graph.kernels == "tandem" or stored <= graph.weight_bytes < stored + inline
    packed = [graph for graph in opened.manifest.graphs if graph.kernels == "tandem"]
    assert len({graph.weight_bytes for graph in packed}) == 1
    products = sum(math.prod(shape) for shape in product_shapes(opened.path / packed[0].file))
    assert products * 5 // 8 <= packed[0].weight_bytes  # 4 bits and a 32nd of a float32 each


def product_shapes(file: Path) -> list[tuple[int, int]]:
    """K and the outputs of every product."""
    graph = onnx.load(file, load_external_data=False).graph
    found = []
    for node in [node for node in graph.node if node.op_type == "MatMulInt4"]:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        found.append((attributes["K"], attributes["N"] * (1 + attributes["gated"])))
    return found


def weight_places(file: Path) -> dict[str, tuple[str, int]]:
    """File and offset of every operator's weights."""
    graph = onnx.load(file, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInt4"]
    found = {}
    for name in [name for node in products for name in node.input[1:]]:
        entries = {entry.key: entry.value for entry in tensors[name].external_data}
        found[name] = entries["location"], int(entries["offset"])
    return found


def test_weights_are_mapped_from_the_file_without_copies() -> None:
    decoder = Decoder("tied")
    decoder.run(decoder.chunk(0, 0, 40))
    data = decoder.bundle.path / "decoder" / "model.tandem.onnx.data"
    regions = Path("/proc/self/smaps").read_text().split("VmFlags:")
    ours = [region for region in regions if str(data) in region]
    assert ours
    for region in ours:
        fields = dict(line.split(":", 1) for line in region.splitlines() if " kB" in line)
        assert fields["Anonymous"].split() == ["0", "kB"]


@pytest.mark.parametrize("name", ["odd", "untied"])
def test_models_the_operators_do_not_fit_have_portable_graphs_only(name: str) -> None:
    graphs = Bundle.open(bundle(name, "int4")).manifest.graphs
    assert {graph.kernels for graph in graphs} == {"onnxruntime"}
